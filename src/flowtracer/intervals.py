"""Intervals over items: of means, of paired differences and ratios by the bootstrap, of shares by Wilson's formula.

Items (rollouts, problems) are drawn with replacement, 10,000 times from a fixed seed, and the interval holds the middle
95 % of the statistic. A difference is paired: both sides see the same draws, so what items share cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from flowtracer.shapes import Float, ndarray

DRAWS = 10_000
LEVEL = 0.95
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its interval, over so many items."""

    mean: float
    low: float
    high: float
    items: int

    def percent(self, unit: str = "%") -> str:
        """As in "52.4 % [48.0, 56.7]"; a difference of shares is in "points"."""
        return f"{100 * self.mean:.1f} {unit} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share_interval(held: Sequence[bool]) -> Interval:
    """Share of items of which something holds; Wilson's interval is right near 0 and 1 too. NaN where there is none."""
    n = len(held)
    if not n:
        return mean_interval(np.empty(0))
    share = sum(held) / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return Interval(mean=share, low=centre - half, high=centre + half, items=n)


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


def ratio_of_means(one_N: Float[ndarray, " N"], other_N: Float[ndarray, " N"], *, seed: int = 0) -> Interval:
    """The mean of `one` over the mean of `other`, both over the same draws: what moves both alike cancels.

    NaN where the mean of `other` is 0; draws in which it is say nothing.
    """
    if not other_N.any():
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"), items=len(one_N))
    one_D, other_D = _resampled_means(one_N, seed), _resampled_means(other_N, seed)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(one_D[other_D != 0] / other_D[other_D != 0], [tail, 1 - tail])
    return Interval(mean=float(one_N.mean() / other_N.mean()), low=float(low), high=float(high), items=len(one_N))


def _resampled_means(values_N: Float[ndarray, " N"], seed: int) -> Float[ndarray, " D"]:
    generator = np.random.default_rng(seed)
    block = max(1, 2_000_000 // len(values_N))  # indices of one block of draws stay within 16 MB
    parts = []
    for start in range(0, DRAWS, block):
        draws = min(block, DRAWS - start)
        parts.append(values_N[generator.integers(0, len(values_N), (draws, len(values_N)))].mean(1))
    return np.concatenate(parts)
