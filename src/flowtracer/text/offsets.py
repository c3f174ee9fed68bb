"""Which characters each token spells, and which tokens spell a span of characters."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from flowtracer.errors import InputError
from flowtracer.text.span import CharSpan


def token_offsets(tokenizer: Any, token_ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The text that token ids decode to, and the half-open range of characters that each contributes to.

    Works on the ids as a model generated them, which need not be those that encoding the text again would give. Tokens
    that spell one character together, such as the bytes of an emoji, all cover it.

    Args:
        tokenizer: A transformers tokenizer: byte-level, or sentencepiece with or without byte fallback.
        token_ids: Ids; special tokens count as their literal text, and rows of a padded vocabulary, which the tokenizer
            does not know, spell nothing.

    Raises:
        InputError: The tokens' spelling does not give the tokenizer's own text.
    """
    ids = [int(i) for i in token_ids]
    expected = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    added = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items()}
    pieces = tokenizer.convert_ids_to_tokens(ids)
    known = [place for place, piece in enumerate(pieces) if piece is not None]
    ids, pieces = [ids[place] for place in known], [pieces[place] for place in known]
    for spell in (_byte_level, _metaspace_with_bytes, _metaspace):
        found = [added[i].encode() if i in added else spell(p) for i, p in zip(ids, pieces, strict=True)]
        if spell is _metaspace_with_bytes:
            found = _replace_ill_formed(pieces, found)
        spelled = [b""] * len(token_ids)
        for place, spelling in zip(known, found, strict=True):
            spelled[place] = spelling
        data = b"".join(spelled)
        text = data.decode("utf-8", errors="replace")
        for dropped in range(2):  # a sentencepiece decoder drops the space that its encoder put in front
            if text[dropped:] == expected and text[:dropped] in ("", " "):
                return expected, _ranges(data, [len(piece) for piece in spelled], dropped)
    raise InputError(
        f"expected a byte-level or sentencepiece tokenizer, got {type(tokenizer).__name__}, whose tokens do not spell "
        "its text"
    )


_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _replace_ill_formed(pieces: Sequence[str], spelled: Sequence[bytes]) -> list[bytes]:
    """As the byte-fallback decoder does: in a run of bytes that is not UTF-8, each is one replacement character."""
    result: list[bytes] = []
    pairs = zip(pieces, spelled, strict=True)
    for are_bytes, group in groupby(pairs, lambda pair: _BYTE.fullmatch(pair[0]) is not None):
        run = [spelling for _, spelling in group]
        ill_formed = are_bytes and "\ufffd" in b"".join(run).decode("utf-8", errors="replace")
        result += ["\ufffd".encode()] * len(run) if ill_formed else run
    return result


@functools.lru_cache(maxsize=1 << 16)  # training asks for the same few pieces over and over
def _byte_level(piece: str) -> bytes:
    return bytes(_BYTE_OF.get(character, 0xFF) for character in piece)


def _metaspace_with_bytes(piece: str) -> bytes:
    byte = _BYTE.fullmatch(piece)
    return bytes([int(byte.group(1), 16)]) if byte else _metaspace(piece)


def _metaspace(piece: str) -> bytes:
    return piece.replace("▁", " ").encode("utf-8", errors="replace")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _ranges(data: bytes, lengths: Sequence[int], dropped: int) -> list[tuple[int, int]]:
    """Ranges of characters from lengths in bytes, shifted by the characters that were dropped in front."""
    character_of = _character_of_byte(data)
    ranges, start = [], 0
    for length in lengths:
        stop = start + length
        first = character_of[start] if start < len(data) else (character_of[-1] + 1 if data else 0)
        last = character_of[stop - 1] + 1 if length else first
        ranges.append((max(first - dropped, 0), max(last - dropped, 0)))
        start = stop
    return ranges


def _character_of_byte(data: bytes) -> list[int]:
    """Index of the character that each byte belongs to, as decoding with replacement counts them."""
    if data.isascii():
        return list(range(len(data)))
    owner, index, position = [], 0, 0
    while position < len(data):
        size = _character_size(data[position : position + 4])
        owner += [index] * size
        position, index = position + size, index + 1
    return owner


def _character_size(head: bytes) -> int:
    """Bytes of the first character; of an invalid one, those that one replacement character stands for."""
    if head[0] < 0x80:
        return 1
    for size in range(2, len(head) + 1):
        try:
            head[:size].decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return error.end - error.start
        else:
            return size
    return len(head)


def tokens_overlapping(offsets: Sequence[tuple[int, int]], span: CharSpan) -> range | None:
    """From the first to the last token that spells a character of the span; None if none does."""
    found = [t for t, (start, stop) in enumerate(offsets) if max(start, span.start) < min(stop, span.stop)]
    return range(found[0], found[-1] + 1) if found else None
