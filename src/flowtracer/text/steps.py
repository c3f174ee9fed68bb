"""Where the steps of a text are: its sentences and lines tile it.

Text may be hostile and long: every pattern and loop here is linear in its length.
"""

# ruff: noqa: RUF001 - full-width punctuation, curly quotes and the minus sign are what is looked for

from __future__ import annotations

import re

from flowtracer.text.span import CharSpan

# A line break with the space behind it; a sentence's end with its closing marks and the space on its line.
_BREAK = re.compile(
    r"""[\n\r\u2028]\s*"""
    r"""|(?<![.!?…])[.!?…]+["'”’)\]*_]*[^\S\n\r\u2028]+(?!\s)"""
    r"""|(?<![。！？])[。！？]+["'”’」』）]*\s*"""
)

_MATHS = re.compile(r"\\[\\$()\[\]]|\$\$?|\n")

_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}

_ABBREVIATIONS = frozenset(
    ["e.g", "i.e", "vs", "cf", "mr", "mrs", "ms", "dr", "prof", "st", "eq", "eqs", "fig", "approx"]
)


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
    if text[match.start()] in "\n\r\u2028。！？" or match.end() == len(text):
        return True
    words = text[max(start, match.start() - 12) : match.start()].split()
    word = words[-1].lstrip("([\"'*_").lower() if words else ""
    if word in _ABBREVIATIONS or text[match.end()].islower():
        return False
    # "1." and "a." open an item of a list; the sentence is still to come.
    marker = text[start : match.start()].strip(" \t*_(") if match.start() - start < 12 else ""
    return not (marker and (marker.isdigit() or (len(marker) == 1 and marker.isalpha())))


def _inside_maths(text: str) -> bytearray:
    """1 on characters between maths delimiters; a pair of single dollars stays on its line.

    A dollar opens before, and closes behind, something that is not a space, so that "$5 and $6" are prices.
    An opener that never closes counts for nothing.
    """
    inside = bytearray(len(text))
    opened: tuple[str, int] | None = None
    for match in _MATHS.finditer(text):
        mark, start, stop = match.group(), match.start(), match.end()
        if mark == "\n":
            opened = None if opened is not None and opened[0] == "$" else opened
            continue
        closes = mark != "$" or not text[start - 1].isspace()
        opens = mark in _CLOSING and (mark != "$" or not text[stop : stop + 1].isspace())
        if opened is not None and mark == _CLOSING[opened[0]] and closes:
            inside[opened[1] : stop] = b"\1" * (stop - opened[1])
            opened = None
        elif opens and (opened is None or mark == opened[0]):
            opened = mark, start
    return inside
