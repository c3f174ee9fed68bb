r"""Numbers that a text gives, as exact fractions.

1. `parse_number` reads an answer that is one number with a unit: digits with a sign, thousands separators in their
   right places and decimals, or a fraction `a/b` or `\frac{a}{b}`. No exponents, no digits of other scripts, no
   arithmetic.
2. `number` reads one out of mathematics, where a letter is a variable: only words and common short units may follow,
   and `1 1/2` is one number.
3. `numerals` finds the numbers within a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 1000
"""Characters of a number; Python itself refuses to read integers of more than 4,300 digits."""

_LATEX = (
    (re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,;:! ]"), " "),
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£]?\s*(?P<inner>[-+]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.(?P<decimals>[0-9]*)|\s*/\s*(?P<below>[0-9]+))?"
    r"\s*(?P<unit>.*)",
    re.DOTALL,
)
# Words that are no unit: they join, hedge, deny or scale.
_NOT_A_UNIT = frozenset(
    {
        *("or", "and", "to", "not", "than", "plus", "minus", "times", "about", "approximately", "so", "half"),
        *("k", "hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion", "billions"),
        *("trillion", "trillions", "dozen", "dozens", "score"),
    }
)


def parse_number(text: str) -> Fraction | None:
    """The one number that an answer gives, or None.

    A currency sign before it and a unit after it are dropped. A unit is at most three words, and none that changes the
    number or hedges: `18 thousand` and `18 or so` give none, and so does any second number.
    """
    if len(text) > LONGEST:
        return None
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = text.replace("\N{MINUS SIGN}", "-").strip().strip("*`").rstrip("$").strip()
    match = _NUMBER.fullmatch(text)
    if match is None or not _is_unit(match["unit"]) or (match["sign"] and match["inner"]):
        return None
    whole, decimals, below = match["whole"], match["decimals"], match["below"]
    if not (whole or decimals) or (below and int(below) == 0):
        return None
    value = Fraction(f"{(whole or '0').replace(',', '')}.{decimals or 0}") / int(below or 1)
    return -value if "-" in (match["sign"], match["inner"]) else value


def _is_unit(text: str) -> bool:
    """At most three words, a per cent sign or a currency sign: nothing that could change the number."""
    words = re.split(r"[\s/-]+", text.lower().rstrip(".").strip())
    return len(words) <= 3 and all(
        word in {"", "%", "$", "€", "£"} or (word.isalpha() and word not in _NOT_A_UNIT) for word in words
    )


def number(text: str) -> Fraction | None:
    """A plain number, with a unit in words behind it or not: no variables, and nothing to be worked out but a / b."""
    if len(text) > LONGEST:
        return None
    bare = _UNIT.sub("", text.strip())
    if mixed := _MIXED.fullmatch(bare):
        above, below = mixed["above"] or mixed["over"], mixed["below"] or mixed["under"]
        size = int(mixed["whole"]) + Fraction(int(above), int(below))
        return -size if mixed["sign"] else size
    return None if _LETTERS.search(_FRACTION.sub("", bare)) else parse_number(bare)


_MIXED = re.compile(
    r"(?P<sign>[-\N{MINUS SIGN}]?)\s*(?P<whole>\d+)"
    r"(?:\s*\\[dt]?frac\s*\{(?P<above>\d+)\}\{(?P<below>0*[1-9]\d*)\}|\s+(?P<over>\d+)/(?P<under>0*[1-9]\d*))"
)
_LETTERS = re.compile(r"[a-zA-Z]")
_FRACTION = re.compile(r"\\[dt]?frac(?![a-zA-Z])")
# A letter or two may be a variable or a product; longer words and common short units are none.
_UNIT = re.compile(
    r"(?<=[\d}])\s*(?!\b(?:and|or|to|sin|cos|tan|cot|sec|csc|log|exp|mod|half|hundred|thousand|million|billion|dozen)\b)"
    r"(?:[a-zA-Z]{3,}|[ckm]m|k?g|ml|ft|lbs?|oz|hr|mi)(?:\^\{?[23]\}?)?(?: [a-zA-Z]+){0,2}\.?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeral:
    """A number within a text."""

    text: str
    """As it is written, with its sign and currency."""
    value: Fraction
    stop: int
    """The character behind it."""


def numerals(text: str) -> Iterator[Numeral]:
    """The numbers of a text in reading order; a minus behind a word, a number or a bracket is an operator."""
    for match in _NUMERAL.finditer(text):
        written = match.group().strip()
        if written and (value := number(written)) is not None:
            yield Numeral(text=written, value=value, stop=match.end())


_NUMERAL = re.compile(
    r"(?:(?<![\w)\]}])[-\N{MINUS SIGN}]\s*)?[$€£]?\s*"
    r"(?:(?:\d+\s*)?\\[dt]?frac\s*\{\d+\}\{\d+\}|\d+\s+\d+/\d+"
    r"|(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)\s*/\s*\d+)?)"
)
