"""Sequences that stand behind each other in one row without padding, as trainers pack what they have sampled.

A layer over such a row is cut at each sequence's own place, which leaves what the sequence alone would give. That holds
for models that keep packed sequences apart by their positions; one that does not is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import sees_before
from flowtracer.errors import CaptureError


class Place(NamedTuple):
    """Where a sequence begins in the rows that a trainer's forward takes."""

    row: int
    column: int


def places_of(lengths: Sequence[int], *, packed: bool) -> list[Place]:
    """Where sequences of these lengths begin: behind each other in one row, or each at the left of a row of its own."""
    if not packed:
        return [Place(row, 0) for row in range(len(lengths))]
    return [Place(0, column) for column in accumulate(lengths[:-1], initial=0)]


def segments(layers: Sequence[LayerAttention], place: Place, length: int) -> list[LayerAttention]:
    """What the layers attend with over so many tokens of the sequence that begins there."""
    return [layer.segment(place.row, place.column, place.column + length) for layer in layers]


def refuse_mixed(layers: Sequence[LayerAttention], places: Sequence[Place]) -> None:
    """Raise where a packed sequence attends to what stands before it.

    Raises:
        CaptureError: Its attention is none of the sequence alone.
    """
    second = next((place for place in places if place.column > 0), None)
    if second is None:
        return
    both = segments(layers, Place(second.row, 0), second.column + 1)
    if sees_before(both, second.column):
        raise CaptureError(
            "expected packed sequences to be kept apart by their positions, got a model whose tokens attend across "
            "them; train without packing"
        )
