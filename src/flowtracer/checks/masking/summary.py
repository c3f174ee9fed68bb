"""What hiding tokens did over many rollouts: shares with paired bootstrap intervals, curves and their areas.

1. A rollout's random draws are averaged first, so every rollout counts once.
2. *Changed*: share of rollouts whose answer is another one. *Flipped*: of those with a gold answer, the share that is
   right with nothing hidden and wrong then, or the reverse. *Log p*: mean change for the answer given before.
3. Differences to random and between top and bottom are paired by rollout.
4. *Deletion* is the curve of log p over the share hidden, *insertion* over the share kept. Its area is the mean height
   by the trapezoid rule over the shares measured, from 0 for deletion, where log p has not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.checks.masking.check import Outcome, VariantOutcome
from flowtracer.checks.masking.variants import RANDOM
from flowtracer.intervals import Interval, mean_interval, paired_difference
from flowtracer.shapes import Float, ndarray

Measure = Callable[[Outcome, VariantOutcome], float]
"""A number for each variant of a rollout; NaN where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSummary:
    """One choice of tokens at one share, over all rollouts."""

    by: str
    end: str
    share: float
    changed: Interval
    flipped: Interval
    log_prob_change: Interval
    changed_over_random: Interval
    """Changed, minus changed by hiding as many tokens at random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProbCurve:
    """Change of log p over the share of tokens."""

    by: str
    kind: str
    """"deletion" or "insertion"."""
    shares: Sequence[float]
    heights: Sequence[float]
    area: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingSummary:
    """The table of a causal check."""

    rollouts: int
    graded: int
    """Those with a gold answer."""
    right_before: float | None
    """Share of the graded that are right with nothing hidden."""
    rows: Sequence[ChoiceSummary]
    top_over_bottom: dict[str, dict[str, Interval]]
    """Changed by top minus changed by bottom, by strategy and share."""
    curves: Sequence[LogProbCurve]


def summarise(outcomes: Sequence[Outcome]) -> MaskingSummary:
    """The table of many outcomes, in the order of their first variants."""
    choices = list(dict.fromkeys((v.by, v.end, v.share) for v in outcomes[0].variants)) if outcomes else []
    rows = []
    for by, end, share in choices:
        changed_N = _measured(outcomes, _changed, by, end, share)
        random_N = _measured(outcomes, _changed, RANDOM, RANDOM, share)
        rows.append(
            ChoiceSummary(
                by=by,
                end=end,
                share=share,
                changed=mean_interval(changed_N),
                flipped=mean_interval(_known(_measured(outcomes, _flipped, by, end, share))),
                log_prob_change=mean_interval(_measured(outcomes, _log_prob, by, end, share)),
                changed_over_random=paired_difference(changed_N, random_N),
            )
        )
    names = [by for by in dict.fromkeys(by for by, _, _ in choices) if by != RANDOM]
    shares = list(dict.fromkeys(share for _, _, share in choices))
    graded = [outcome.correct for outcome in outcomes if outcome.correct is not None]
    return MaskingSummary(
        rollouts=len(outcomes),
        graded=len(graded),
        right_before=sum(graded) / len(graded) if graded else None,
        rows=rows,
        top_over_bottom={
            by: {
                str(share): paired_difference(
                    _measured(outcomes, _changed, by, "top", share), _measured(outcomes, _changed, by, "bottom", share)
                )
                for share in shares
            }
            for by in names
        },
        curves=[
            curve
            for by, end in [*((name, "top") for name in names), (RANDOM, RANDOM)]
            for curve in _curves(outcomes, by, end, shares)
        ],
    )


def _curves(outcomes: Sequence[Outcome], by: str, end: str, shares: Sequence[float]) -> list[LogProbCurve]:
    """Deletion, and insertion where it was run."""
    found = []
    for kind, keeps in (("deletion", False), ("insertion", True)):
        if not any(v.by == by and v.keeps == keeps for outcome in outcomes for v in outcome.variants):
            continue
        heights_SN = np.stack([_measured(outcomes, _log_prob, by, end, share, keeps=keeps) for share in shares])
        places = np.array(shares)
        if not keeps:
            heights_SN = np.concatenate([np.zeros((1, heights_SN.shape[1])), heights_SN])
            places = np.concatenate([[0.0], places])
        found.append(
            LogProbCurve(
                by=by,
                kind=kind,
                shares=places.tolist(),
                heights=heights_SN.mean(1).tolist(),
                area=mean_interval(_mean_height(heights_SN, places)),
            )
        )
    return found


def _mean_height(heights_SN: Float[ndarray, "S N"], places_S: Float[ndarray, " S"]) -> Float[ndarray, " N"]:
    """Area under each rollout's curve over its width; the height itself where there is one place alone."""
    if len(places_S) == 1:
        return heights_SN[0]
    widths_S1 = np.diff(places_S)[:, None]
    return ((heights_SN[1:] + heights_SN[:-1]) / 2 * widths_S1).sum(0) / widths_S1.sum()


def _measured(
    outcomes: Sequence[Outcome], measure: Measure, by: str, end: str, share: float, *, keeps: bool = False
) -> Float[ndarray, " N"]:
    """A number for each rollout, averaged over random draws."""
    return np.array(
        [
            np.mean(
                [
                    measure(outcome, variant)
                    for variant in outcome.variants
                    if (variant.by, variant.end, variant.share, variant.keeps) == (by, end, share, keeps)
                ]
            )
            for outcome in outcomes
        ],
        dtype=np.float64,
    )


def _changed(_outcome: Outcome, variant: VariantOutcome) -> float:
    return float(variant.changed)


def _flipped(outcome: Outcome, variant: VariantOutcome) -> float:
    known = outcome.correct is not None and variant.correct is not None
    return float(outcome.correct != variant.correct) if known else float("nan")


def _log_prob(_outcome: Outcome, variant: VariantOutcome) -> float:
    return variant.log_prob_change


def _known(values_N: Float[ndarray, " N"]) -> Float[ndarray, " M"]:
    return values_N[~np.isnan(values_N)]
