"""How long tracing many rollouts will take, said before it is begun.

The tokens up to each answer are counted, and a short and a longer one of these rollouts are traced and timed. A forward
grows with the tokens, attention and flow with their square, so a trace takes `a T + b T^2`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from flowtracer.errors import TraceError
from flowtracer.flow.solve import matrix_bytes
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.tracer import Tracer

_TIMED = 1024
"""Tokens of the longest rollout that is traced only to be timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What lies ahead."""

    rollouts: int
    """Those that can be traced."""
    tokens: int
    """Up to their answers."""
    longest: int
    """Tokens of the longest."""
    seconds: float
    streamed: int
    """Rollouts whose matrix, or matrices of layers, exceed the memory budget by themselves."""


def estimate(tracer: Tracer, rollouts: Sequence[Rollout]) -> Estimate:
    """Count, time two, and add up; the time of streamed rollouts is a lower bound."""
    needed: list[tuple[int, Rollout]] = []
    for rollout in rollouts:
        try:
            needed.append((tracer.needed_tokens(rollout), rollout))
        except TraceError:  # counted and named when it is its turn
            continue
    lengths = sorted(length for length, _ in needed)
    matrices = len(tracer.reader.layers) if tracer.graph == "layered" else 1
    linear, square = _cost(tracer, sorted(needed, key=lambda pair: pair[0]))
    return Estimate(
        rollouts=len(lengths),
        tokens=sum(lengths),
        longest=max(lengths, default=0),
        seconds=sum((linear * length + square * length**2 for length in lengths), start=0.0),
        streamed=sum(matrices * matrix_bytes(1, length) > tracer.memory_budget for length in lengths),
    )


def _cost(tracer: Tracer, needed: Sequence[tuple[int, Rollout]]) -> tuple[float, float]:
    """Seconds a token, and a token squared."""
    if not needed:
        return 0.0, 0.0
    short, long = needed[0], max((pair for pair in needed if pair[0] <= _TIMED), default=needed[0], key=lambda p: p[0])
    tracer.trace_batch([short[1]])  # the first forward of a process is slower than the rest
    (first, first_time), (second, second_time) = ((length, _seconds(tracer, one)) for length, one in (short, long))
    if second < 2 * first:  # too alike to tell the two terms apart
        return second_time / second, 0.0
    square = max(0.0, (second_time / second - first_time / first) / (second - first))
    return max(0.0, second_time / second - square * second), square


def _seconds(tracer: Tracer, rollout: Rollout) -> float:
    started = time.perf_counter()
    tracer.trace_batch([rollout])
    return time.perf_counter() - started
