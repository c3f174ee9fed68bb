"""Means over seeds with Student's intervals, and differences between runs, paired by seed or not.

1. A mean lies within `t * deviation / sqrt(seeds)`, t of seeds - 1 degrees of freedom, at 95 %.
2. Paired by seed, a difference is the mean of the seeds' differences. Where runs share no seeds it is that of the
   means, its variance the sum of theirs and its degrees of freedom those of Welch and Satterthwaite.
3. p-values are corrected for their number by Holm's method: the k-th smallest of m is multiplied by m - k + 1, and none
   is smaller than the one before it.

One seed alone has no interval: bounds and p are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowtracer.errors import MissingDependencyError
from flowtracer.intervals import LEVEL, Interval
from flowtracer.shapes import Float, ndarray

try:
    from scipy import stats
except ImportError as error:
    raise MissingDependencyError(f'expected scipy, got {error}: pip install "flowtracer[report]"') from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far one run is above another."""

    interval: Interval
    p: float
    """Two-sided, of a difference of 0; NaN with one seed, 1 where all seeds agree that it is 0."""


def student_interval(values_N: Float[ndarray, " N"]) -> Interval:
    """Mean over seeds with Student's interval; NaN bounds where there is one seed alone."""
    return _paired(values_N).interval


def difference(one_N: Float[ndarray, " N"], other_M: Float[ndarray, " M"], *, paired: bool) -> Difference:
    """`one - other`; where paired, both have one value a seed, in the same order."""
    if paired:
        return _paired(one_N - other_M)
    variances = [_error(values) ** 2 for values in (one_N, other_M)]
    total = float(sum(variances))
    shares = [v**2 / (len(values) - 1) for v, values in zip(variances, (one_N, other_M), strict=True) if v > 0]
    freedom = float(total**2 / sum(shares)) if shares else math.inf
    items = min(len(one_N), len(other_M))
    return _difference(float(one_N.mean() - other_M.mean()), math.sqrt(total), freedom, items)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number; NaN stays, and does not count."""
    tested = sorted((name for name in p if not math.isnan(p[name])), key=p.__getitem__)
    corrected, largest = dict(p), 0.0
    for rank, name in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p[name]))
        corrected[name] = largest
    return corrected


def mean_heights(values_SN: Float[ndarray, "S N"], places_N: Float[ndarray, " N"]) -> Float[ndarray, " S"]:
    """Mean height of each curve: the area below it by the trapezoid rule, over its length."""
    if len(places_N) == 1:
        return values_SN[:, 0]
    return ((values_SN[:, 1:] + values_SN[:, :-1]) / 2 * np.diff(places_N)).sum(1) / (places_N[-1] - places_N[0])


def _error(values_N: Float[ndarray, " N"]) -> float:
    """Standard error of the mean."""
    n = len(values_N)
    return float(values_N.std(ddof=1) / n**0.5) if n > 1 else math.nan


def _paired(values_N: Float[ndarray, " N"]) -> Difference:
    return _difference(float(values_N.mean()), _error(values_N), float(len(values_N) - 1), len(values_N))


def _difference(mean: float, error: float, freedom: float, items: int) -> Difference:
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * error) if error == error else math.nan
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error == error else math.nan
    return Difference(interval=Interval(mean=mean, low=mean - half, high=mean + half, items=items), p=p)
