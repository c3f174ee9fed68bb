r"""How a causal check asks for an answer, where the answer ends, and whether two are the same.

1. A cue asks anew: `\nThe answer is`, up to `\boxed{` where the response's own answer is boxed, or `\n<answer>` where
   it is tagged. It never quotes the response, whose last sentence may state the answer twice.
2. Where the response's own answer is a number, so is what is read: the first that is generated, which also ends the
   generation. Other answers end at their closing mark, or with their line.
3. Answers are compared as `flowtracer eval` grades them, but for algebra, which may take for ever and would be asked of
   every variant: `x + 1` and `1 + x` are two answers here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowtracer.evaluation.equality import plain, written_alike
from flowtracer.evaluation.grading import LONGEST, lone_letter, value
from flowtracer.text.answer import Answer
from flowtracer.text.numbers import number, numerals

# What asks for the answer, and what closes it, by the rule that located the response's own.
_CUES = {"boxed": ("\nThe answer is \\boxed{", "}"), "answer_tag": ("\n<answer>", "</answer>")}
_PLAIN_CUE = ("\nThe answer is", "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What asks for an answer, and how the answer is read."""

    cue: str
    closing: str
    numeric: bool
    """The response's own answer is a number."""

    @classmethod
    def after(cls, found: Answer, cue: str | None = None) -> Asking:
        """The way of asking that a response's own answer calls for, or one with a cue of one's own."""
        asks, closing = _CUES.get(found.rule, _PLAIN_CUE) if cue is None else (cue, "\n")
        return cls(cue=asks, closing=closing, numeric=_gives_number(found.text))

    def complete(self, text: str) -> bool:
        """Whether a generated answer has ended: behind its number, at its closing mark, or with its line."""
        text = text.lstrip()
        return "\n" in text or self._closed(text) is not None or (self.numeric and _number_ended(text))

    def read(self, text: str) -> str:
        """The answer within generated text."""
        text = text.lstrip()
        text = text[: self._closed(text)].split("\n")[0].strip()
        first = next(numerals(plain(text)), None) if self.numeric else None
        return text if first is None else str(first.value)

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are the same."""
        return same_answer(one, other, numeric=self.numeric)

    def _closed(self, text: str) -> int | None:
        """Where the closing mark stands; a brace that the answer itself has opened is none."""
        if self.closing != "}":
            return place if (place := text.find(self.closing)) >= 0 else None
        depth = 0
        for match in _BRACE.finditer(text):
            depth += {"{": 1, "}": -1}.get(match.group(), 0)
            if depth < 0:
                return match.start()
        return None


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def same_answer(one: str, other: str, *, numeric: bool) -> bool:
    """Whether two answers are the same: as numbers where both hold one, else as they are written."""
    if max(len(one), len(other)) > LONGEST:
        return one.split() == other.split()
    values = (value(one), value(other)) if numeric else (None, None)
    if None not in values:
        return values[0] == values[1]
    letter = lone_letter(one)
    return written_alike(one, other) or (letter is not None and letter == lone_letter(other))


def _gives_number(text: str) -> bool:
    """Whether an answer is one number, perhaps with words around it or what it was computed from before it."""
    if len(text) > LONGEST:
        return False
    said = plain(text).rpartition("=")[2]
    found = list(numerals(said))
    if number(said) is not None or len(found) != 1:
        return number(said) is not None
    around = said.replace(found[0].text, " ", 1)
    return not _MATHS.search(around) and not said[found[0].stop : found[0].stop + 1].isalpha()


_MATHS = re.compile(r"[\\^*/+<>_{}|!]|\d|(?<!\w)-|-(?!\w)")


def _number_ended(text: str) -> bool:
    """Whether the first number of a text stands there whole, whatever follows."""
    first = next(numerals(text), None)
    return first is not None and not _HALF_FRACTION.search(text) and not _MORE.fullmatch(text, first.stop)


_HALF_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{[^{}]*(?:\}\s*(?:\{[^{}]*)?)?)?\Z")
# What may still become decimals, thousands, a fraction or a mixed number.
_MORE = re.compile(r"\s*(?:\.|,\d{0,2}|/\s*|\\(?:[dt]?(?:f(?:r(?:a(?:c.*)?)?)?)?)?)?|\s+\d+/?", re.DOTALL)
