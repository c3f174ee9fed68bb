"""Where the answer is in a text, and where its steps are.

1. `locate_answer` tries rules in a fixed order and takes the last complete, non-empty match of the first rule
   that has one: a box, an answer tag, `#### x`, "the answer is x", a label at the start of a line. Its span
   holds the answer's own characters: no box, tag, emphasis, maths delimiters or full stop around them. A miss
   has a named reason, that of the first rule which came close.
2. Responses that state it otherwise have a pattern of their own: a regular expression whose first group is the answer,
   or a function. Then no rule is tried.

Text may be hostile and long: every pattern and loop here is linear in its length, and a pattern of a user's own sees
the end of it alone, for a limited time.
"""

# ruff: noqa: RUF001 - full-width punctuation, curly quotes and the minus sign are what is looked for

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from operator import index
from typing import Any

from flowtracer.errors import InputError
from flowtracer.text.span import CharSpan


class Miss(str, Enum):
    """Why no answer was located."""

    EMPTY_RESPONSE = "empty_response"
    NO_ANSWER = "no_answer"
    UNCLOSED_BOX = "unclosed_box"
    EMPTY_ANSWER = "empty_answer"
    ANSWER_NOT_IN_TEXT = "answer_not_in_text"
    SLOW_PATTERN = "slow_pattern"

    @property
    def message(self) -> str:
        """What was expected, what was found, what to do."""
        return _MESSAGES[self]


_MESSAGES = {
    Miss.EMPTY_RESPONSE: "expected a response with an answer, got an empty one; leave it out",
    Miss.NO_ANSWER: (
        r'expected \boxed{x}, <answer>x</answer>, "#### x", "answer is x" or a line "A: x", or what answer_pattern '
        "finds, got none; pass the answer as it stands in the response, or an answer_pattern"
    ),
    Miss.UNCLOSED_BOX: (
        r"expected \boxed{x}, got a box that never closes, as in a response that was cut off; "
        "allow more tokens, or pass the answer as it stands in the response"
    ),
    Miss.EMPTY_ANSWER: (
        "expected an answer, got the place for one with nothing in it; pass the answer as it stands in the response"
    ),
    Miss.ANSWER_NOT_IN_TEXT: (
        "expected the given answer to stand in the response by itself, got no such place; "
        "pass it as it is written there"
    ),
    Miss.SLOW_PATTERN: (
        "expected an answer_pattern that is found or not found at once, got none in time; write it without repeats "
        "within repeats, such as (a+)+"
    ),
}

AnswerPattern = str | Callable[[str], tuple[int, int] | None]
"""How responses state their answer: a regular expression whose first group is the answer, of which the last match that
holds something counts, or a function from a response to the answer's first character and the one behind its last; None
where there is none."""

_SEEN = 100_000
"""Characters at the end of a response that a regular expression is looked for in."""
_PATIENCE = 1.0
"""Seconds that it may take; a usual one takes milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A located answer."""

    span: CharSpan
    text: str
    rule: str
    """boxed, answer_tag, hashes, answer_is, label, pattern, or given."""


def locate_answer(text: str, answer: str | None = None, pattern: AnswerPattern | None = None) -> Answer | Miss:
    """The answer's own characters in a response, or why there are none.

    Args:
        text: The response.
        answer: If given, its last place in the text where it is no part of a longer word or number.
        pattern: What finds it instead of the rules.

    Raises:
        InputError: A pattern that is none, or a function that gives something else than a place in the text.
    """
    if not text.strip():
        return Miss.EMPTY_RESPONSE
    located = _by_rules(text) if pattern is None else _by_pattern(text, pattern)
    return located if answer is None else _given(text, answer, located)


def check_pattern(pattern: Any) -> None:
    """Raise where a pattern is none.

    Raises:
        InputError: No regular expression, or one without a group.
    """
    if isinstance(pattern, str):
        _compiled(pattern)
    elif pattern is not None and not callable(pattern):
        raise InputError(f"expected answer_pattern as a regular expression or a function, got {pattern!r}")


def first_box(text: str) -> Answer | Miss:
    """The inside of the first box that closes, exactly as it stands there."""
    for start, stop in _boxed(text):
        if start < stop:
            return Answer(span=CharSpan(start=start, stop=stop), text=text[start:stop], rule="boxed")
    return Miss.UNCLOSED_BOX if _BOX.search(text) else Miss.NO_ANSWER


def boxes(text: str) -> list[CharSpan]:
    """The insides of all boxes that close and hold something but no other box, in the order in which they open."""
    opened = [match.start() for match in _BOX.finditer(text)]
    return [
        CharSpan(start=start, stop=stop)
        for start, stop in _boxed(text)
        if bisect_left(opened, start) == bisect_left(opened, stop) and _VISIBLE.search(text, start, stop)
    ]


_VISIBLE = re.compile(r"\S")


def opening_of(text: str, span: CharSpan) -> int:
    r"""Where that begins which opens an answer: `\boxed{`, `<answer>`, `####`; else where the answer itself does."""
    window = max(0, span.start - _LONGEST_OPENING)
    found = _OPENING.search(text[window : span.start])
    return window + found.start() if found else span.start


_OPENING = re.compile(r"(?:\\(?:boxed|fbox)\s*\{|<answer>|####)[^\w]*\Z", re.IGNORECASE)
_LONGEST_OPENING = 32


def _by_rules(text: str) -> Answer | Miss:
    boxes = [match.start() for match in _BOX.finditer(text)]
    miss = Miss.UNCLOSED_BOX if boxes else Miss.NO_ANSWER
    for rule, matches in _RULES.items():
        for start, stop in reversed(list(matches(text))):
            if bisect_left(boxes, start) < bisect_left(boxes, stop):  # "the answer is \boxed{}" is that box's miss
                continue
            start, stop = _trim(text, start, stop, prose=rule != "boxed")
            if start < stop:
                return Answer(span=CharSpan(start=start, stop=stop), text=text[start:stop], rule=rule)
            if rule == "boxed" or miss is Miss.NO_ANSWER:
                miss = Miss.EMPTY_ANSWER
    return miss


def _by_pattern(text: str, pattern: AnswerPattern) -> Answer | Miss:
    """The last match that holds something."""
    try:
        spans = _matches(text, pattern) if isinstance(pattern, str) else _told(text, pattern)
    except TimeoutError:
        return Miss.SLOW_PATTERN
    for start, stop in reversed(spans):
        inside = text[start:stop].strip()
        if inside:
            start = text.index(inside, start)
            return Answer(span=CharSpan(start=start, stop=start + len(inside)), text=inside, rule="pattern")
    return Miss.EMPTY_ANSWER if spans else Miss.NO_ANSWER


def _matches(text: str, pattern: str) -> list[tuple[int, int]]:
    found = _compiled(pattern).finditer(text, max(0, len(text) - _SEEN), timeout=_PATIENCE)
    return [match.span(1) for match in found if match.span(1) != (-1, -1)]


def _told(text: str, pattern: Callable[[str], tuple[int, int] | None]) -> list[tuple[int, int]]:
    place = pattern(text)
    if place is None:
        return []
    try:
        start, stop = map(index, place)
    except (TypeError, ValueError):
        start, stop = -1, -1
    if not 0 <= start <= stop <= len(text):
        raise InputError(
            f"expected answer_pattern to give a place within the {len(text)} characters of a response, or None, got "
            f"{place!r}"
        )
    return [(start, stop)]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    import regex  # whose searches can be ended; Python's own cannot

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise InputError(f"expected answer_pattern as a regular expression, got {pattern!r}: {error}") from error
    if not compiled.groups:
        raise InputError(
            f"expected answer_pattern with a group that is the answer, such as 'Result: (.+)', got {pattern!r}"
        )
    return compiled


_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# A doubled backslash is a line break of LaTeX, but "\\boxed" is a box escaped twice.
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\(?!\\(?:boxed|fbox)).|[{}]", re.DOTALL)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"(?P<indent>^[ \t]*)?(?<!#)####(?!#)(?P<value>[^\r\n\u2028]*)", re.MULTILINE)
_ANSWER_IS = re.compile(r"\banswer[*_]{0,2}(?:\s+(?:is|equals)\b|\s*[:：=])", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:^|(?<=[\r\u2028]))[ \t]*(?:#+[ \t]+)?[*_]{0,2}(?:(?i:final[ \t]+answer|answer)|A)[*_]{0,2}"
    r"(?P<colon>[:：])(?P<value>[^\r\n\u2028]*)",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"""[.!?](?=(?:[*_$"'”’)\]]|\\[)\]])*(?:\s|$))|[。！？\r\n\u2028]""")


def _boxed(text: str) -> Iterator[tuple[int, int]]:
    """Insides of closed boxes, in the order in which they open. Braces balance; escaped ones do not count."""
    found: list[tuple[int, int]] = []
    open_at: list[int | None] = []  # None for a brace that is no box's
    for match in _BRACES.finditer(text):
        piece = match.group()
        if piece.endswith("{") and piece != r"\{":
            open_at.append(match.end() if len(piece) > 1 else None)
        elif piece == "}" and open_at and (start := open_at.pop()) is not None:
            found.append((start, match.start()))
    yield from sorted(found)


def _tagged(text: str) -> Iterator[tuple[int, int]]:
    """Insides of closed tags; before them one that never closes: generation may stop at the closing tag."""
    closed, start = [], None
    for match in _TAG.finditer(text):
        if not match.group(1):
            start = match.end()
        elif start is not None:
            closed.append((start, match.start()))
            start = None
    if start is not None:
        yield start, len(text)
    yield from closed


def _hashed(text: str) -> Iterator[tuple[int, int]]:
    """`#### x` behind other text, on the last line, or with one number: else it is a heading."""
    last = len(text.rstrip())
    for match in _HASHES.finditer(text):
        words = match["value"].split(None, 1)
        if match["indent"] is None or match.end() >= last or (len(words) == 1 and re.search(r"\d", words[0])):
            yield match.span("value")


def _stated(text: str) -> Iterator[tuple[int, int]]:
    """What "answer is" or "answer:" is followed by, up to the end of the sentence."""
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

_PAIRS = [(mark, mark) for mark in ("**", "*", "__", "$$", "$", "`", '"')]
_PAIRS += [(r"\(", r"\)"), (r"\[", r"\]"), ("“", "”")]
_TRAILING = ".,;:!?。，！？"
_TURN_END = re.compile(r"(?:<\|[^|<>\s]{1,40}\|>|</s>)$")
_TURN_END_LENGTH = 44


def _trim(text: str, start: int, stop: int, *, prose: bool) -> tuple[int, int]:
    """Take off what surrounds an answer: space, emphasis, maths delimiters, quotes; in prose punctuation too.

    A delimiter goes if it stands only at the edges: "$x$ and $y$" stays whole, and the loop is short.
    """
    while True:
        before = start, stop = _strip(text, start, stop, prose=prose)
        for opening, closing in _PAIRS:
            leads, trails = text.startswith(opening, start, stop), text.endswith(closing, start, stop)
            if not (leads or trails) or (opening == "$" and not trails):  # "$5" is a price
                continue
            marks = text.count(opening, start, stop) + (opening != closing and text.count(closing, start, stop))
            if marks <= leads + trails:
                start += leads * len(opening)
                stop = max(start, stop - trails * len(closing))
        if (start, stop) == before:
            return start, stop


def _strip(text: str, start: int, stop: int, *, prose: bool) -> tuple[int, int]:
    leading, trailing = (":：", _TRAILING) if prose else ("", "")
    while start < stop and (text[start].isspace() or text[start] in leading):
        start += 1
    while start < stop:
        if text[stop - 1].isspace() or text[stop - 1] in trailing:
            stop -= 1
        elif (mark := _TURN_END.search(text, max(start, stop - _TURN_END_LENGTH), stop)) is not None:
            stop = mark.start()
        else:
            break
    return start, stop


def _given(text: str, answer: str, located: Answer | Miss) -> Answer | Miss:
    """The last place where the answer stands by itself, within the located answer if it stands there."""
    answer = answer.strip()
    if not answer:
        return Miss.EMPTY_ANSWER
    # A pattern compares the answer anew at every place, which is slow where it is long and stands nowhere.
    spans = [match.span() for match in _standing_alone(answer).finditer(text)] if answer in text else []
    if isinstance(located, Answer):
        region = located.span
        spans = [span for span in spans if region.start <= span[0] and span[1] <= region.stop] or spans
    if not spans:
        return Miss.ANSWER_NOT_IN_TEXT
    start, stop = spans[-1]
    return Answer(span=CharSpan(start=start, stop=stop), text=answer, rule="given")


# A letter or digit, but not of Chinese, Japanese or Korean, which put no space between a number and a word.
_WORD = r"[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_SIGN = r"(?<!^[-−])(?<![^\w)\]}][-−])"


def _standing_alone(answer: str) -> re.Pattern[str]:
    """The answer where it is no part of a longer word or number: 18, 8.5 and -8 hold no 8."""
    pattern = re.escape(answer)
    if answer[0].isalnum() or answer[0] == ".":
        pattern = rf"(?<!{_WORD})(?<!\d[.,])" + (_SIGN if answer[0].isdigit() else "") + pattern
    if answer[-1].isalnum():
        pattern += rf"(?!{_WORD})(?![.,]\d)"
    return re.compile(pattern)
