"""How well scores of tokens tell needed steps from distractors: AUROC, with intervals over problems.

1. A token's score counts from the least in its response: so a flat strategy gives nothing to any step, and a sum does
   not punish length where scores are negative.
2. A *step*'s score is the sum over its tokens, or their mean. A *token* stands for itself: those of needed steps
   against those of distractors.
3. The AUROC is the chance that a needed one outscores a distractor of the same response, ties counting half: 0.5 says
   nothing, 1 separates them all, 0 does so the wrong way round.
4. It is averaged over problems, with a bootstrap interval over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.checks.planted.cases import Case
from flowtracer.intervals import Interval, mean_interval
from flowtracer.shapes import Float, ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What was judged."""

    name: str
    """Of the strategy, or of the signal."""
    by: str
    """"score", what a strategy ranks tokens by; "credit", the advantage that it gives them; or "signal"."""
    band: str = ""
    """Layers that a signal was read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """AUROC on one problem."""

    steps: float
    step_means: float
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """AUROC over the problems that something had scores for."""

    key: Key
    steps: Interval
    """By the sum over a step's tokens."""
    step_means: Interval
    """By their mean."""
    tokens: Interval


Found = Mapping[Key, Judgement]


def judge(scores_R: Float[ndarray, " R"], case: Case) -> Judgement:
    """Judge the scores of one response's tokens."""
    above_R = scores_R - scores_R.min()
    sums_S = case.steps_SR @ above_R
    means_S = sums_S / case.steps_SR.sum(1)
    needed_R, distracting_R = (case.steps_SR[of_S].any(0) for of_S in (case.needed_S, ~case.needed_S))
    both_R = needed_R & distracting_R  # a token across a border speaks for neither
    return Judgement(
        steps=auroc(sums_S[case.needed_S], sums_S[~case.needed_S]),
        step_means=auroc(means_S[case.needed_S], means_S[~case.needed_S]),
        tokens=auroc(above_R[needed_R & ~both_R], above_R[distracting_R & ~both_R]),
    )


def auroc(needed: np.ndarray, distractors: np.ndarray) -> float:
    """Chance that one of the needed scores exceeds one of the distractors', ties counting half."""
    difference_ND = np.subtract.outer(needed, distractors)
    return float(((difference_ND > 0) + 0.5 * (difference_ND == 0)).mean())


def summarise(found: Sequence[Found], *, seed: int = 0) -> list[Separation]:
    """Intervals over problems, in the order of names: one that is silent on the first problem keeps its place."""
    keys = list(dict.fromkeys(key for of_problem in found for key in of_problem))
    names = list(dict.fromkeys(key.name for key in keys))
    keys.sort(key=lambda key: names.index(key.name))
    rows = []
    for key in keys:
        judged = [of_problem[key] for of_problem in found if key in of_problem]
        steps, step_means, tokens = (
            mean_interval(np.array([getattr(one, name) for one in judged]), seed=seed)
            for name in ("steps", "step_means", "tokens")
        )
        rows.append(Separation(key=key, steps=steps, step_means=step_means, tokens=tokens))
    return rows
