"""Intervals over items: of means, of paired differences and ratios by the bootstrap, of shares by Wilson's formula, of
differences between a few items that are not paired by permutations.

Items (rollouts, problems) are drawn with replacement, 10,000 times from a fixed seed, and the interval holds the middle
95 % of the statistic. A paired difference lets both sides see the same draws, so what items share cancels.

The bootstrap is too narrow over a handful of items. `difference_of_means` is exact for any number: it holds the shifts
that a permutation test does not refuse, if the two sides differ by a shift alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from flowtracer.shapes import Bool, Float, ndarray

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


def difference_of_means(one_N: Float[ndarray, " N"], other_M: Float[ndarray, " M"]) -> Interval:
    """The mean of `one` less that of `other`, of items that are not paired.

    With `one` moved by a shift, exchanging some of it for as many of `other` raises its sum just where the shift is
    above the difference between the means of what is exchanged. So the shifts that the permutation test does not refuse
    lie between two order statistics of these differences, over all exchanges, or 10,000 where there are more. Bounds
    are infinite where there are so few exchanges that no shift can be refused; NaN where a side has no item.
    """
    items = len(one_N) + len(other_M)
    if not len(one_N) or not len(other_M):
        return Interval(mean=float("nan"), low=float("nan"), high=float("nan"), items=items)
    mean = float(one_N.mean() - other_M.mean())
    dealt_DN = _dealt(len(one_N), len(other_M))
    given_DN, taken_DM = ~dealt_DN[:, : len(one_N)], dealt_DN[:, len(one_N) :]
    # In order, so that the sums do not depend on the order that the items came in.
    shifts_D = np.sort((given_DN @ np.sort(one_N) - taken_DM @ np.sort(other_M)) / given_DN.sum(1))
    refused = int((1 - LEVEL) / 2 * (len(shifts_D) + 1))
    if not refused:
        return Interval(mean=mean, low=-math.inf, high=math.inf, items=items)
    low, high = float(shifts_D[refused - 1]), float(shifts_D[-refused])
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean), items=items)


def can_tell(one: int, other: int) -> bool:
    """Whether so many items on each side are enough for `difference_of_means` to have bounds."""
    return (1 - LEVEL) / 2 * math.comb(one + other, one) >= 1


@lru_cache(maxsize=8)
def _dealt(one: int, other: int) -> Bool[ndarray, "D N"]:
    """Ways to deal items to two sides of fixed sizes but for the given one; True goes to the first."""
    items = one + other
    if math.comb(items, one) <= DRAWS:
        chosen_DN = np.array(list(itertools.combinations(range(items), one)))
    else:
        chosen_DN = np.random.default_rng(0).random((DRAWS, items)).argsort(1)[:, :one]
    dealt_DN = np.zeros((len(chosen_DN), items), dtype=bool)
    np.put_along_axis(dealt_DN, chosen_DN, True, axis=1)
    return dealt_DN[~dealt_DN[:, :one].all(1)]


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
