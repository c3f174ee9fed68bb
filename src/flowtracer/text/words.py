r"""What a person has one name for in a text: words, numbers, operators; and which tokens spell each.

1. `split_words` finds words ("farmers' ", "well-known"), numbers with their sign, currency, thousands, decimals and per
   cent sign ("-$1,200.50"), and operators ("+", "=", `\times`). What stands between them is format: white space, line
   breaks, punctuation, marks of Markdown, tags and special tokens.
2. `group_tokens` tiles the tokens of one step. A token is of the word that its first character beyond format is in.
   A run of tokens of format alone closes what stands before it: a line or a message where it holds a line break or a
   special token, the step where no word follows, else the word. Only spaces directly before a word are its own, as most
   tokenizers spell them together; so is what opens the step.

Text may be hostile and long: every pattern and loop here is linear in its length.
"""

# ruff: noqa: RUF001 - full-width punctuation, curly quotes and the minus sign are what is looked for

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from flowtracer.text.span import CharSpan, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word, number or operator of a text."""

    span: CharSpan
    kind: str
    """word, number or operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """Consecutive tokens that go by one name."""

    span: Span
    kind: str
    """word, number, operator; or end: format that closes a line, a message or the step."""
    word: CharSpan
    """The word's own characters; of an end, its tokens'."""


_PIECE = re.compile(
    r"""
    (?P<format>
        <\|[^|<>\s]{1,40}\|>(?:(?:system|user|assistant|tool)\b)?  # special tokens, with the role that they open
      | </?[A-Za-z_]{1,20}>                                      # tags
      | ^[ \t]*(?:[-*+•]|\d{1,3}[.)])(?=[ \t])                   # what opens an item of a list
      | (?<=\w)-(?=[^\W\d_])                                    # a hyphen: "a 10-gallon jar"
      | \\[()\[\]] | [*_~`\#|]{2,} | -{2,} | ={3,} )              # maths delimiters, marks of Markdown, rules
  | (?P<number>
        (?:(?<![\w)\]}])(?<![\d)\]}]\s)[-−])?[$€£]?
        (?:\d{1,3}(?:,\d{3})+(?!\d) | \d+)(?:\.\d+)?(?:%|(?:st|nd|rd|th)\b)?
      | (?<!\d)\.\d+%? )
  | (?P<operator>
        \\(?:times|div|cdot|pm|frac|dfrac|tfrac|sqrt|le|leq|ge|geq|lt|gt|ne|neq|approx|equiv)(?![A-Za-z])
      | (?<=[\d\s)])[xX](?=\s?[$€£(]?\d)
      | [-+*/=<>≤≥≈≠^×÷·−±→⇒]=? )
  | (?P<word> [^\W\d_]+(?:['’‑-][^\W\d_]+)*['’]?  )
    """,
    re.VERBOSE | re.MULTILINE,
)


def split_words(text: str) -> list[Word]:
    """The words, numbers and operators of a text in reading order; what is in none of them is format."""
    return [
        Word(span=CharSpan(start=match.start(), stop=match.end()), kind=match.lastgroup)
        for match in _PIECE.finditer(text)
        if match.lastgroup is not None and match.lastgroup != "format"
    ]


def group_tokens(text: str, words: Sequence[Word], offsets: Sequence[tuple[int, int]], step: Span) -> list[TokenGroup]:
    """Tile the tokens of a step with its words; format goes to what it closes.

    Args:
        text: The whole text.
        words: Its words, as `split_words` gives them.
        offsets: Characters that each token of the text contributes to.
        step: The tokens to tile.
    """
    pieces = [text[slice(*offsets[token])] for token in step]
    places = [_word_at(words, *offsets[token]) for token in step]
    for n in range(len(places) - 2, -1, -1):  # spaces before a word are its own
        if places[n] is None and not pieces[n].strip(" "):
            places[n] = places[n + 1]
    owners = _closed(places, pieces)
    groups: list[TokenGroup] = []
    begun = 0
    for owner, run in groupby(owners):
        stop = begun + len(list(run))
        span = Span(start=step.start + begun, stop=step.start + stop)
        if owner >= 0:
            groups.append(TokenGroup(span=span, kind=words[owner].kind, word=words[owner].span))
        else:
            ends = CharSpan(start=offsets[span.start][0], stop=max(offsets[token][1] for token in span))
            groups.append(TokenGroup(span=span, kind="end", word=ends))
        begun = stop
    return groups


_END = -1
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")
_CLOSING = re.compile(rf"[\n\r\u2028]|{_SPECIAL.pattern}")


def _closed(places: Sequence[int | None], pieces: Sequence[str]) -> list[int]:
    """For every token the word that it is of or closes, or `_END` where it closes more than a word."""
    owners: list[int] = []
    before: int | None = None
    at = 0
    for place, run in groupby(places):
        length = len(list(run))
        if place is not None:
            owner = place
        elif (
            at > 0
            and before is not None
            and at + length < len(places)
            and not _CLOSING.search("".join(pieces[at : at + length]))
        ):
            owner = before
        elif at == 0 and length < len(places) and not _SPECIAL.search("".join(pieces[:length])):
            owner = places[length] or 0  # it opens the step
        else:
            owner = _END
        owners += [owner] * length
        before, at = owner if owner != _END else before, at + length
    return owners


def _word_at(words: Sequence[Word], start: int, stop: int) -> int | None:
    """Index of the word that the first character of a token beyond format is in; None for format alone."""
    place = max(bisect_right(words, start, key=lambda word: word.span.start) - 1, 0)
    while place < len(words) and words[place].span.start < stop:
        if words[place].span.stop > start:
            return place
        place += 1
    return None
