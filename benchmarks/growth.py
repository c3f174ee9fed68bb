"""How times grow with length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence


def exponents(times: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Slope of log seconds over log tokens of each name, from 1,024 tokens on, where it was timed at two lengths.

    Args:
        times: Tokens, and seconds by name.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for length, seconds in times:
        for name, time in seconds.items() if length >= 1024 else ():
            points.setdefault(name, []).append((math.log(length), math.log(max(time, 1e-9))))
    return {
        name: statistics.linear_regression(*zip(*found, strict=True)).slope
        for name, found in points.items()
        if len(found) > 1
    }
