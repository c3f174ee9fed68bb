"""Which steps of responses are the same: of two side by side, in order, and of many by what they say.

1. Of two, equal steps are paired by difflib's longest matching blocks.
2. Between those, the pairing in order whose words are most alike, by dynamic programming.
3. What has no partner stands alone.

Likeness does not carry over from pair to pair, so among many two steps are one where `said` is equal:

1. the same words, numbers and operators in the same order, whatever their case, punctuation and spacing; or
2. of steps with three numbers or more, as a calculation has: the same numbers, the same of them last, and the same
   names of one letter. So "60 x 3 = 180" and "The second month: 3*60 = $180" are one step in other words; "p = y+3,
   y is 3, p is 6" and "n = y+3, y is 3, n is 6" are two.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from flowtracer.shapes import Float, ndarray
from flowtracer.text.numbers import parse_number
from flowtracer.text.words import split_words
from flowtracer.trace.trace import Trace

LIKENESS = 0.5
"""Steps are called the same step, reworded, from this share of common words on."""


_CALCULATION = 3
"""Numbers of a step that make it a calculation: two that something is done with, and what comes of it."""
_NO_NAMES = frozenset("aAI")
"""Words of one letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """Steps that stand side by side."""

    a: int | None
    """Index of A's step; None: only B has it."""
    b: int | None
    likeness: float
    """Share of words in common: 1 for the same text, 0 where one of them is missing."""


Words = tuple[str, ...]


def step_words(trace: Trace, first: int) -> list[Words]:
    """Words of each step from number `first` on."""
    return [tuple(trace.slice_text(span).split()) for span in trace.step_spans[first:]]


def said(text: str) -> Hashable:
    """What a step says: equal for steps that are the same, step by step among many responses."""
    written = [(word.kind, text[word.span.start : word.span.stop]) for word in split_words(text)]
    numbers = [_value(piece) for kind, piece in written if kind == "number"]
    if len(numbers) >= _CALCULATION:
        *taken, last = numbers
        names = {piece for kind, piece in written if kind == "word" and len(piece) == 1 and piece not in _NO_NAMES}
        return frozenset(Counter(taken).items()), last, frozenset(names)
    return tuple(_value(piece) if kind == "number" else piece.casefold() for kind, piece in written) or text.strip()


def _value(number: str) -> Hashable:
    """The value of a number, or, where it is too long to be one, its digits."""
    value = parse_number(number)
    return number if value is None else value


def align_steps(a: list[Words], b: list[Words], shift: int) -> tuple[StepPair, ...]:
    """Steps side by side, equal ones first of all; `shift` is the index of the first."""
    pairs: list[tuple[int | None, int | None, float]] = []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs += zip(range(a0, a1), range(b0, b1), itertools.repeat(1.0), strict=False)
        else:
            pairs += [
                (None if i is None else i + a0, None if j is None else j + b0, likeness)
                for i, j, likeness in _align_reworded(a[a0:a1], b[b0:b1])
            ]
    return tuple(
        StepPair(a=None if i is None else i + shift, b=None if j is None else j + shift, likeness=likeness)
        for i, j, likeness in pairs
    )


def _align_reworded(a: list[Words], b: list[Words]) -> list[tuple[int | None, int | None, float]]:
    """The pairing in order whose likenesses sum to most, by dynamic programming from the end."""
    alike = _likeness(a, b)
    best = np.zeros((len(a) + 1, len(b) + 1))
    for i, j in itertools.product(reversed(range(len(a))), reversed(range(len(b)))):
        best[i, j] = max(best[i + 1, j], best[i, j + 1], best[i + 1, j + 1] + alike[i, j])
    pairs: list[tuple[int | None, int | None, float]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        if alike[i, j] > 0 and best[i, j] == best[i + 1, j + 1] + alike[i, j]:
            pairs.append((i, j, float(alike[i, j])))
            i, j = i + 1, j + 1
        elif best[i, j] == best[i + 1, j]:
            pairs.append((i, None, 0.0))
            i += 1
        else:
            pairs.append((None, j, 0.0))
            j += 1
    return [*pairs, *((k, None, 0.0) for k in range(i, len(a))), *((None, k, 0.0) for k in range(j, len(b)))]


def _likeness(a: list[Words], b: list[Words]) -> Float[ndarray, "A B"]:
    """Share of words in common and in order, of every pair; 0 below `LIKENESS`."""
    column = {word: n for n, word in enumerate(dict.fromkeys(itertools.chain.from_iterable(b)))}
    counts = np.zeros((len(b), len(column)), dtype=np.int32)
    for j, words in enumerate(b):
        np.add.at(counts[j], [column[word] for word in words], 1)
    lengths = np.array([len(words) for words in b])
    alike = np.zeros((len(a), len(b)))
    for i, words in enumerate(a):
        known = Counter(word for word in words if word in column)
        common = np.minimum(counts[:, [column[word] for word in known]], list(known.values())).sum(1)
        # Words in common in any order bound those in order, and spare the search for pairs that are quite different.
        for j in np.flatnonzero(2 * common >= LIKENESS * np.maximum(len(words) + lengths, 1)).tolist():
            ratio = SequenceMatcher(None, words, b[j], autojunk=False).ratio()
            alike[i, j] = ratio if ratio >= LIKENESS else 0.0
    return alike
