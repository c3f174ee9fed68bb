"""Half-open ranges of characters and of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flowtracer.shapes import Bool, ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class CharSpan:
    """A half-open range of characters."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A half-open range of tokens."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.stop))

    def mask(self, length: int) -> Bool[ndarray, " T"]:
        """True inside."""
        inside = np.zeros(length, dtype=bool)
        inside[self.start : self.stop] = True
        return inside
