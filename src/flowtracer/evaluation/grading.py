r"""Whether a response answers its question: find the final answer, then compare it by the benchmark's rule.

1. The final answer is what `flowtracer.text.answer` locates: the last box, else an answer tag, `####`, "the answer
   is", a line "A:", or, where responses have a pattern of their own, what that finds. What no mark shows is no answer,
   with one exception (3).
2. `math`: the same by `flowtracer.evaluation.equality`. Boxes in a row are one answer of several parts.
3. `number`: equal as numbers, units and currency aside. Where no mark shows an answer, it is the last number of a
   response that ended by itself, as harnesses read GSM8K; not so with a pattern.
4. `choice`: the same letter, or the text of the choice in full.
5. `short`: a letter as a choice, other answers by their words or as mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

from flowtracer.errors import InputError
from flowtracer.evaluation.base import Answered, Grade
from flowtracer.evaluation.equality import plain, same
from flowtracer.text.answer import Answer, Miss, boxes, locate_answer
from flowtracer.text.numbers import number, numerals
from flowtracer.text.span import CharSpan

LONGEST = 2000
"""Characters of an answer. The longest gold answer of these benchmarks has some 200."""

CORRECT, WRONG, NO_ANSWER, CUT_OFF, TOO_LONG = "correct", "wrong_value", "no_answer", "cut_off", "too_long"


def grade(answered: Answered) -> Grade:
    """Grade one response.

    Raises:
        InputError: No such rule.
    """
    if answered.rule not in RULES:
        raise InputError(f"expected a rule of grading out of {', '.join(RULES)}, got {answered.rule!r}")
    located = locate_answer(answered.response, pattern=answered.pattern)
    if isinstance(located, Miss):
        by_place = answered.rule == "number" and answered.finished and answered.pattern is None
        written = [n.text for n in numerals(answered.response)] if by_place else []
        if not written:
            return Grade(correct=False, reason=NO_ANSWER if answered.finished else CUT_OFF)
        text, found = written[-1], "last_number"
    else:
        text, found = located.text, located.rule
    if len(text) > LONGEST:
        return Grade(correct=False, reason=TOO_LONG, answer=text[:LONGEST], found=found)
    right = RULES[answered.rule](answered, text)
    if not right and found == "boxed" and answered.rule == "math":
        several = _boxes_in_a_row(answered.response)
        if several is not None and len(several) <= LONGEST:
            text, right = several, _math(answered, several)
    return Grade(correct=right, reason=CORRECT if right else WRONG, answer=text, found=found)


def _math(answered: Answered, text: str) -> bool:
    return same(answered.gold, text, tolerance=answered.tolerance)


def _number(answered: Answered, text: str) -> bool:
    gold, given = value(answered.gold), value(text)
    return gold is not None and gold == given


def _choice(answered: Answered, text: str) -> bool:
    options = answered.options or {}
    letter = _letter(text)
    if letter is None or (options and letter not in options):
        letter = next((name for name, option in options.items() if _same_words(option, text)), None)
    return letter is not None and letter == _letter(answered.gold)


def _short(answered: Answered, text: str) -> bool:
    if lone_letter(answered.gold) is not None:
        return _choice(answered, text)
    return _same_words(answered.gold, text) or same(answered.gold, text, tolerance=answered.tolerance)


RULES: dict[str, Callable[[Answered, str], bool]] = {
    "math": _math,
    "number": _number,
    "choice": _choice,
    "short": _short,
}

BY_MATH_VERIFY = frozenset({"math", "short"})
"""Rules that need math-verify."""


def value(text: str) -> Fraction | None:
    """The number that an answer gives: it alone, else the first behind the last equals sign."""
    clean = plain(text)
    whole = number(clean)
    return whole if whole is not None else next((n.value for n in numerals(clean.rpartition("=")[2])), None)


def lone_letter(text: str) -> str | None:
    """The letter of "B" or "(b)", in upper case; None for anything longer."""
    match = _LETTER.fullmatch(text.strip())
    return match.group(1).upper() if match else None


_LETTER = re.compile(r"\(?([A-Za-z])\)?")
_LETTERED = re.compile(r"(?:option|choice|answer)?\s*\(?([A-Z])(?:[).:,]|\s+-|\s*$).*", re.IGNORECASE | re.DOTALL)


def _letter(text: str) -> str | None:
    """The letter of "B", "(b)", "B. Paris", "Option B": nothing else stands before it."""
    match = _LETTERED.fullmatch(plain(text))
    return match.group(1).upper() if match else None


def _same_words(one: str, other: str) -> bool:
    """The same letters and digits, without articles and case; signs of arithmetic count, marks do not."""
    (words, signs), (others, other_signs) = (_words_and_signs(text) for text in (one, other))
    return words == others and signs == other_signs


def _words_and_signs(text: str) -> tuple[list[str], list[str]]:
    said = unicodedata.normalize("NFKC", plain(text)).casefold()
    return [word for word in re.findall(r"\w+", said) if word not in ("a", "an", "the")], _SIGN.findall(said)


# A hyphen behind a word is none: COVID-19.
_SIGN = re.compile(r"(?<![^\W\d_]{2})-|[+*/^=<>]|(?<=\d)\.(?=\d)")


# Marks behind "and" only where there is one: two runs of marks in a row would be cut in every way.
_JOINT = re.compile(r"\}?[\s$.,;&\\()]*(?:(?:\\text\{\s*)?(?:and|or)(?:\s*\})?[\s$,;&\\()]*)?")


def _boxes_in_a_row(response: str) -> str | None:
    r"""The last boxes with nothing but "and" or a comma between them, as one list: `\boxed{3} and \boxed{5}`."""
    row: list[CharSpan] = []  # the last first
    for span in reversed(boxes(response)):
        if row and not _JOINT.fullmatch(_between(response, span, row[-1])):
            break
        row.append(span)
    return ", ".join(response[span.start : span.stop] for span in reversed(row)) if len(row) > 1 else None


def _between(text: str, one: CharSpan, other: CharSpan) -> str:
    """What stands between two boxes."""
    return re.sub(r"\\(?:boxed|fbox)\s*\{$", "", text[one.stop : other.start])


def read_gold(text: str) -> str:
    """A gold answer out of what a record says: the located answer where the record shows its working, else the text."""
    located = locate_answer(text)
    if isinstance(located, Answer) and located.rule in ("boxed", "hashes", "answer_tag", "label"):
        return located.text
    return text.strip()
