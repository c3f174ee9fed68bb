r"""How good a model is on a benchmark: avg@k and pass@k, with intervals over problems.

1. avg@k is the share of right responses, averaged over the k samples of a problem and then over problems.
2. pass@k is the probability that at least one of k samples is right. With c right ones among n samples of a problem,
   `1 - C(n - c, k) / C(n, k)` estimates it without bias (Chen et al. 2021, arXiv 2107.03374).
3. Problems are drawn with replacement for the intervals, samples stay with their problem. Where every problem has 0 or
   1, the mean is a share, and Wilson's interval is used: the bootstrap of 30 zeros would be sure of zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.intervals import Interval, mean_interval, share_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Our grades beside the labels that responses came with."""

    labelled: int
    same: int
    only_here: int
    """Right by our grading alone."""
    only_label: int
    """Right by the label alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """One benchmark."""

    benchmark: str
    problems: int
    samples: int
    """Of each problem; the fewest where they differ."""
    average: Interval
    """avg@k."""
    passes: Mapping[str, Interval]
    """pass@k by k, for k of 1, 2, 4 ... and the number of samples."""
    finished: float
    """Share of responses that ended by themselves."""
    tokens: float | None
    """Mean length of a response, where known."""
    reasons: Mapping[str, int]
    """Responses by what became of them."""
    found: Mapping[str, int]
    """Responses by the mark that showed their answer."""
    skipped: Mapping[str, int]
    """Records that are no problem, by reason."""
    agreement: Agreement | None = None


def summarise(benchmark: str, lines: Sequence[Mapping[str, Any]], skipped: Sequence[str] = ()) -> BenchmarkResult:
    """The result of one benchmark.

    Args:
        benchmark: Its name.
        lines: One for each response, with id, is_correct, reason, found, finished and tokens.
        skipped: A reason for each record that was left out.

    Raises:
        InputError: No lines.
    """
    if not lines:
        raise InputError(f"expected at least one graded response of {benchmark}, got none")
    by_problem: dict[str, list[bool]] = {}
    for line in lines:
        by_problem.setdefault(line["id"], []).append(line["is_correct"])
    graded = list(by_problem.values())
    samples = min(map(len, graded))
    lengths = [line["tokens"] for line in lines if line["tokens"] is not None]
    return BenchmarkResult(
        benchmark=benchmark,
        problems=len(graded),
        samples=samples,
        average=_interval([sum(right) / len(right) for right in graded]),
        passes={
            str(k): _interval([pass_at(k, len(right), sum(right)) for right in graded]) for k in powers_of_two(samples)
        },
        finished=sum(line["finished"] for line in lines) / len(lines),
        tokens=sum(lengths) / len(lengths) if lengths else None,
        reasons=dict(Counter(line["reason"] for line in lines).most_common()),
        found=dict(Counter(line["found"] for line in lines if line["found"]).most_common()),
        skipped=dict(Counter(skipped).most_common()),
        agreement=_agreement(lines),
    )


def pass_at(k: int, samples: int, right: int) -> float:
    """Probability that `k` samples, drawn from so many without replacement, hold a right one."""
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise InputError(f"expected 1 <= k <= samples and 0 <= right <= samples, got {k}, {samples} and {right}")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def powers_of_two(samples: int) -> list[int]:
    """1, 2, 4 ... below the number of samples, and that number."""
    return sorted({2**power for power in range(samples.bit_length()) if 2**power <= samples} | {samples})


def _interval(values: Sequence[float]) -> Interval:
    if all(value in (0, 1) for value in values):
        return share_interval([value == 1 for value in values])
    return mean_interval(np.asarray(values, dtype=np.float64))


def _agreement(lines: Sequence[Mapping[str, Any]]) -> Agreement | None:
    labelled = [(line["is_correct"], line["label"]) for line in lines if line.get("label") is not None]
    if not labelled:
        return None
    return Agreement(
        labelled=len(labelled),
        same=sum(here == label for here, label in labelled),
        only_here=sum(here and not label for here, label in labelled),
        only_label=sum(label and not here for here, label in labelled),
    )
