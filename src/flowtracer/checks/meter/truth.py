"""Per-token truth: where a strategy's scores land, held against what tokens contribute.

A token contributes `A_i d_it`, its advantage times its slope along `g*`: what it adds to the reward, to first order,
when plain GRPO takes a step.

1. *AUROC*: of what helps and of what hurts in a response, each token by the size of its contribution, the chance that
   the help outscores the hurt. Most tokens contribute next to nothing, with a sign that is noise, and count for next to
   nothing. *Rank correlation*: Spearman's, of score and contribution in a response, where all tokens count alike. Both
   over the responses that have an advantage and that the strategy says something about, averaged by problem, with
   intervals over problems.
2. *Credit curve*: tokens by tenth of their score within the response. The sum of contributions of a tenth over the sum
   of squared noise is the best factor as a function of the score, up to scale: it maximises `<g, g*> / |g|` when the
   noise of different tenths is uncorrelated. The noise is that of forward mode along a random direction `z`, by
   response: `(A_i w_i sum_t <grad log pi_it, z>)^2`, whose mean is the squared length of that response's part of the
   gradient. The curve is scaled so that its sizes have the mean 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.checks.meter.minibatch import Measured
from flowtracer.checks.ranks import auroc_of, correlation_of, ranks
from flowtracer.intervals import Interval, mean_interval, ratio_of_means
from flowtracer.shapes import Float, ndarray

TENTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTruth:
    """How a strategy's scores agree with what tokens contribute."""

    name: str
    auroc: Interval
    correlation: Interval
    curve: tuple[Interval, ...]
    """The best factor by tenth of the score, from the lowest to the highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    minibatch: int
    problem: int
    score_R: ndarray
    contribution_R: ndarray
    weight: float
    """What the loss multiplies the contribution by."""
    noise_R: ndarray
    """Of the weighted contribution."""


def token_truths(measured: Sequence[Measured], names: Sequence[str], *, group: int, seed: int = 0) -> list[TokenTruth]:
    """Of every strategy; `group` is the number of responses to a problem."""
    return [_token_truth(measured, place, name, group=group, seed=seed) for place, name in enumerate(names)]


def _token_truth(measured: Sequence[Measured], place: int, name: str, *, group: int, seed: int) -> TokenTruth:
    aurocs: dict[int, list[float]] = {}
    correlations: dict[int, list[float]] = {}
    signal_MQ, noise_MQ = np.zeros((2, len(measured), TENTHS))
    for each in _responses(measured, place, group):
        rank_R = ranks(each.score_R)
        auroc = auroc_of(rank_R, each.contribution_R)
        if not np.isnan(auroc):
            aurocs.setdefault(each.problem, []).append(auroc)
        correlation = correlation_of(rank_R, ranks(each.contribution_R))
        if not np.isnan(correlation):
            correlations.setdefault(each.problem, []).append(correlation)
        tenth_R = np.minimum((rank_R / len(rank_R) * TENTHS).astype(int), TENTHS - 1)
        signal_MQ[each.minibatch] += np.bincount(tenth_R, each.weight * each.contribution_R, TENTHS)
        noise_MQ[each.minibatch] += np.bincount(tenth_R, each.noise_R, TENTHS) ** 2
    return TokenTruth(
        name=name,
        auroc=mean_interval(np.array([np.mean(found) for found in aurocs.values()]), seed=seed),
        correlation=mean_interval(np.array([np.mean(found) for found in correlations.values()]), seed=seed),
        curve=_curve(signal_MQ, noise_MQ, seed),
    )


def _responses(measured: Sequence[Measured], place: int, group: int) -> Iterator[_Response]:
    for number, each in enumerate(measured):
        contributions_BR = each.contributions_BR().double().numpy()
        scores_BR, noise_BR = each.scores_SBR[place].double().numpy(), each.noise_BR.double().numpy()
        for row, (advantage, weight) in enumerate(
            zip(each.advantages_B.tolist(), each.weights_B.tolist(), strict=True)
        ):
            mask_R = each.mask_BR[row].numpy()
            if advantage != 0 and mask_R.sum() > 1 and not np.isnan(scores_BR[row, mask_R]).any():
                yield _Response(
                    minibatch=number,
                    problem=number * len(each.advantages_B) + row // group,
                    score_R=scores_BR[row, mask_R],
                    contribution_R=contributions_BR[row, mask_R],
                    weight=weight,
                    noise_R=advantage * weight * noise_BR[row, mask_R],
                )


def _curve(signal_MQ: Float[ndarray, "M Q"], noise_MQ: Float[ndarray, "M Q"], seed: int) -> tuple[Interval, ...]:
    filled = [bool((noise_M > 0).all()) for noise_M in noise_MQ.T]  # a score with many ties leaves tenths empty
    found = [
        ratio_of_means(signal_M, noise_M, seed=seed) if there else mean_interval(np.empty(0))
        for signal_M, noise_M, there in zip(signal_MQ.T, noise_MQ.T, filled, strict=True)
    ]
    size = float(np.mean([abs(each.mean) for each, there in zip(found, filled, strict=True) if there] or [np.nan]))
    return tuple(
        Interval(mean=each.mean / size, low=each.low / size, high=each.high / size, items=each.items) for each in found
    )
