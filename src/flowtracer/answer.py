"""Where the answer is in a text, and where its steps are.

1. `locate_answer` tries rules in a fixed order and takes the last complete, non-empty match of the first rule that has
   one: a box, an answer tag, `#### x`, "the answer is x", a label at the start of a line. Its span holds the answer's
   own characters: no box, tag, emphasis, dollar pair or full stop around them. A miss has a named reason.
2. `split_steps` tiles a text with its sentences and lines.

Text may be hostile and long: every pattern here is linear in its length.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum


class Miss(str, Enum):
    """Why no answer was located."""

    EMPTY_RESPONSE = "empty_response"
    NO_ANSWER = "no_answer"
    UNCLOSED_BOX = "unclosed_box"
    EMPTY_ANSWER = "empty_answer"
    ANSWER_NOT_IN_TEXT = "answer_not_in_text"

    @property
    def message(self) -> str:
        """What was expected, what was found, what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Miss.EMPTY_RESPONSE: "expected a response with an answer, got an empty one",
    Miss.NO_ANSWER: (
        r'expected \boxed{x}, <answer>x</answer>, "#### x", "answer is x" or a line "A: x", got none; '
        "pass the answer as it stands in the response"
    ),
    Miss.UNCLOSED_BOX: r"expected \boxed{x}, got a box that never closes; the response may have been cut off",
    Miss.EMPTY_ANSWER: "expected an answer, got the place for one with nothing in it",
    Miss.ANSWER_NOT_IN_TEXT: (
        "expected the given answer to stand in the response by itself, got no such place; pass it as it is written there"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CharSpan:
    """A half-open range of characters."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A located answer."""

    span: CharSpan
    text: str
    rule: str
    """boxed, answer_tag, hashes, answer_is, label, or given."""


def locate_answer(text: str, answer: str | None = None) -> Answer | Miss:
    """The answer's own characters, or why there are none.

    Args:
        text: A response.
        answer: The answer as it stands in the text, to look for instead; not as a part of a longer number or word.
    """
    if not text.strip():
        return Miss.EMPTY_RESPONSE
    located = _by_rules(text)
    return located if answer is None else _given(text, answer, located)


def _by_rules(text: str) -> Answer | Miss:
    miss = Miss.NO_ANSWER
    for rule, matches in _RULES.items():
        for start, stop in reversed(list(matches(text))):
            start, stop = _trim(text, start, stop)
            if start < stop:
                return Answer(span=CharSpan(start=start, stop=stop), text=text[start:stop], rule=rule)
            miss = Miss.EMPTY_ANSWER
    if miss is Miss.NO_ANSWER and _BOX.search(text):
        return Miss.UNCLOSED_BOX
    return miss


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(.*)$", re.MULTILINE)
_NUMBER_WORD = re.compile(r"\S*\d\S*")
_ANSWER_IS = re.compile(r"\banswer(?:[ \t]+(?:is|equals)\b[ \t]*:?|[ \t]*[:=])", re.IGNORECASE)
_LABEL = re.compile(
    r"^[ \t]*[*_]{0,2}(?:final[ \t]+answer|answer|A)[*_]{0,2}(?P<colon>:)[*_]{0,2}(?P<value>.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？\r\n\u2028]")


def _boxed(text: str) -> Iterator[tuple[int, int]]:
    """Insides of closed boxes in the order in which the boxes open; braces inside balance, escaped ones do not count."""
    found, open_at = [], []
    for match in _BRACES.finditer(text):
        piece = match.group()
        if piece.endswith("{") and piece != r"\{":
            open_at.append(match.end() if len(piece) > 1 else None)
        elif piece == "}" and open_at and (start := open_at.pop()) is not None:
            found.append((start, match.start()))
    yield from sorted(found)


def _tagged(text: str) -> Iterator[tuple[int, int]]:
    """Insides of tags. A last tag that never closes runs to the end: generation often stops at the closing tag."""
    start = None
    for match in _TAG.finditer(text):
        if not match.group(1):
            start = match.end()
        elif start is not None:
            yield start, match.start()
            start = None
    if start is not None:
        yield start, len(text)


def _hashed(text: str) -> Iterator[tuple[int, int]]:
    """`#### x` on the last line, or with a number on any: elsewhere it is a heading."""
    last = len(text.rstrip())
    for match in _HASHES.finditer(text):
        if match.end() >= last or _NUMBER_WORD.fullmatch(match.group(1).strip()):
            yield match.span(1)


def _stated(text: str) -> Iterator[tuple[int, int]]:
    """ "The answer is x", up to the end of the sentence."""
    ends = [match.start() for match in _SENTENCE_END.finditer(text)] + [len(text)]
    labels = {match.end("colon") for match in _LABEL.finditer(text)}
    for match in _ANSWER_IS.finditer(text):
        if match.end() not in labels:
            yield match.end(), ends[bisect_left(ends, match.end())]


def _labelled(text: str) -> Iterator[tuple[int, int]]:
    """A line that begins with "A:", "Answer:" or "Final answer:"."""
    for match in _LABEL.finditer(text):
        yield match.span("value")


_RULES: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "boxed": _boxed,
    "answer_tag": _tagged,
    "hashes": _hashed,
    "answer_is": _stated,
    "label": _labelled,
}

_PAIRS = (("**", "**"), ("__", "__"), ("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("`", "`"), ('"', '"'), ("“", "”"))
_TRAILING = ".,;:!?。，！？"
_TURN_END = re.compile(r"(?:<\|[^|<>\s]{1,40}\|>|</s>)$")


def _trim(text: str, start: int, stop: int) -> tuple[int, int]:
    """Take off what surrounds an answer: space, end-of-turn marks, full stops, emphasis, maths delimiters, quotes."""
    while True:
        before = start, stop
        while start < stop and text[start].isspace():
            start += 1
        while start < stop and (text[stop - 1].isspace() or text[stop - 1] in _TRAILING):
            stop -= 1
        if (mark := _TURN_END.search(text, max(start, stop - 45), stop)) is not None:
            stop = mark.start()
        for opening, closing in _PAIRS:
            inside = len(opening) + len(closing) <= stop - start
            if inside and text.startswith(opening, start) and text.endswith(closing, start, stop):
                start, stop = start + len(opening), stop - len(closing)
        if (start, stop) == before:
            return start, stop


def _given(text: str, answer: str, located: Answer | Miss) -> Answer | Miss:
    """The last place where the answer stands by itself, within the located answer if it stands there."""
    answer = answer.strip()
    if not answer:
        return Miss.EMPTY_ANSWER
    regions = [(0, len(text))]
    if isinstance(located, Answer):
        regions.insert(0, (located.span.start, located.span.stop))
    for low, high in regions:
        start = text.rfind(answer, low, high)
        while start >= 0:
            stop = start + len(answer)
            if _stands_alone(text, start, stop):
                return Answer(span=CharSpan(start=start, stop=stop), text=answer, rule="given")
            start = text.rfind(answer, low, stop - 1)
    return Miss.ANSWER_NOT_IN_TEXT


def _stands_alone(text: str, start: int, stop: int) -> bool:
    """Whether these characters are not part of a longer word or number."""
    first, last = text[start], text[stop - 1]
    before, after = text[max(start - 2, 0) : start], text[stop : stop + 2]
    if first.isalnum() and before and (before[-1].isalnum() or _joins(before[::-1])):
        return False
    return not (last.isalnum() and after and (after[0].isalnum() or _joins(after)))


def _joins(pair: str) -> bool:
    """A point or comma with a digit behind it: the middle of a number."""
    return len(pair) == 2 and pair[0] in ".," and pair[1].isdigit()


# A line break with what space follows; the end of a sentence with its closing marks and the space behind.
_BREAK = re.compile(
    r"""[\n\u2028]\s*|(?<![.!?…])[.!?…]+["'”’)\]*_]*[^\S\n\u2028]+|(?<![。！？])[。！？]+["'”’」』）]*\s*"""
)
_MATHS = re.compile(r"\$\$|\$|\\[()\[\]]")
_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_ABBREVIATIONS = frozenset(["e.g", "i.e", "vs", "cf", "mr", "mrs", "ms", "dr", "prof", "st", "eq", "eqs", "fig", "approx"])


def split_steps(text: str) -> list[CharSpan]:
    """Tile a text with its sentences and lines, in order and without gaps.

    A step ends behind a line break, or behind a sentence unless what follows goes on in lower case. Decimals,
    abbreviations, list markers and maths between delimiters do not end one.
    """
    maths = _inside_maths(text)
    ends = []
    start = 0
    for match in _BREAK.finditer(text):
        if _ends_step(text, start, match, maths):
            ends.append(match.end())
            start = match.end()
    if start < len(text):
        ends.append(len(text))
    starts = [0, *ends][: len(ends)]
    if len(ends) > 1 and not text[: ends[0]].strip():  # white space alone is no step
        starts.pop(1)
        ends.pop(0)
    return [CharSpan(start=a, stop=b) for a, b in zip(starts, ends, strict=True)]


def _ends_step(text: str, start: int, match: re.Match[str], maths: bytearray) -> bool:
    if maths[match.start()]:
        return False
    if match.group()[0] in "\n\u2028。！？" or match.end() == len(text):
        return True
    words = text[max(start, match.start() - 12) : match.start()].split()
    word = words[-1].lstrip("([\"'*_").lower() if words else ""
    if word in _ABBREVIATIONS or text[match.end()].islower():
        return False
    # "1." and "a." open an item of a list; the sentence is still to come.
    marker = text[start : match.start()].strip(" \t*_(") if match.start() - start < 12 else ""
    return not (marker and (marker.isdigit() or (len(marker) == 1 and marker.isalpha())))


def _inside_maths(text: str) -> bytearray:
    """1 on characters between maths delimiters.

    A dollar opens before, and closes behind, something that is not a space, so that "$5 and $6" are prices.
    """
    inside = bytearray(len(text))
    opened: tuple[str, int] | None = None
    for match in _MATHS.finditer(text):
        mark, start, stop = match.group(), match.start(), match.end()
        closes = mark != "$" or not text[start - 1 : start].isspace()
        opens = mark in _CLOSING and (mark != "$" or not text[stop : stop + 1].isspace())
        if opened is not None and mark == _CLOSING[opened[0]] and closes:
            if mark != "$" or "\n" not in text[opened[1] : start]:  # inline maths stays on its line
                inside[opened[1] : stop] = b"\1" * (stop - opened[1])
            opened = None
        elif opens and (opened is None or mark == opened[0] == "$"):
            opened = mark, start
    return inside
