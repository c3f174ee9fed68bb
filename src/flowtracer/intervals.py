"""Bootstrap intervals over items: of means, and of paired differences.

Items (rollouts, problems) are drawn with replacement, 10,000 times from a fixed seed, and the interval holds the middle
95 % of the statistic. A difference is paired: both sides see the same draws, so what items share cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowtracer.shapes import Float, ndarray

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its interval, over so many items."""

    mean: float
    low: float
    high: float
    items: int


def mean_interval(values_N: Float[ndarray, " N"], *, seed: int = 0) -> Interval:
    """The mean over items; NaN where there is none."""
    if not len(values_N):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"), items=0)
    means_D = _resampled_means(values_N, seed)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means_D, [tail, 1 - tail])
    return Interval(mean=float(values_N.mean()), low=float(low), high=float(high), items=len(values_N))


def paired_difference(one_N: Float[ndarray, " N"], other_N: Float[ndarray, " N"], *, seed: int = 0) -> Interval:
    """The mean of `one - other`, item by item."""
    return mean_interval(one_N - other_N, seed=seed)


def _resampled_means(values_N: Float[ndarray, " N"], seed: int) -> Float[ndarray, " D"]:
    generator = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(values_N))  # indices of one block of draws stay within 16 MB
    parts = []
    for start in range(0, DRAWS, block):
        draws = min(block, DRAWS - start)
        parts.append(values_N[generator.integers(0, len(values_N), (draws, len(values_N)))].mean(1))
    return np.concatenate(parts)
