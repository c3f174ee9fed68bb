"""Images of a batch as a trainer carries them: what a processor made of them, cut by sequence as TRL cuts it.

A processor lays images out by family, and only some of what it gives has a row for each sequence. So

1. how many rows of a tensor belong to each sequence is told from what comes with it: patches by the grids of its
   images, tiles by their number, images by theirs, else one row each (TRL's `_get_per_token_logps_and_entropies`);
2. a few sequences get their rows, joined in their order. Of sequences without an image nothing is left but the kinds
   of their tokens: a model that is shown nothing runs on text.

Every forward of credit's own gets just what the trainer's pass over the same sequences gets, and no positions: a model
that numbers image tokens by their place in the image works these out itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flowtracer.shapes import Int

TOKEN_KINDS = ("token_type_ids", "mm_token_type_ids")
"""Which tokens are text and which an image's, (B, T) over prompts and responses, padding included."""
PIXELS = (
    "pixel_values",
    "image_grid_thw",
    "image_position_ids",
    "spatial_shapes",
    "pixel_attention_mask",
    "image_sizes",
)
COUNTS = ("num_images", "num_tiles")
"""Of each sequence."""
FIELDS = (*PIXELS, *TOKEN_KINDS, *COUNTS)
"""All that a batch of TRL's may hold of images."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """What a processor made of the images of a batch of sequences."""

    size: int
    """Sequences of the batch."""
    pixels: Mapping[str, Tensor]
    """By name among `PIXELS`, rows as the processor lays them out."""
    kinds: Mapping[str, Tensor]
    """By name among `TOKEN_KINDS`."""
    images: Sequence[int]
    """Of each sequence; of some there may be none."""
    tiles: Sequence[int] | None = None
    """Of each sequence, where a processor cuts images into tiles and lays those out one by one."""

    @classmethod
    def of(cls, batch: Mapping[str, Any], size: int) -> Images | None:
        """Those of a batch of TRL's, or of what TRL hands on of one; None where it shows none."""
        if batch.get("pixel_values") is None:
            return None
        there = {name: batch[name] for name in FIELDS if batch.get(name) is not None}
        tiles = there.get("num_tiles")
        return cls(
            size=size,
            pixels={name: there[name] for name in PIXELS if name in there},
            kinds={name: there[name] for name in TOKEN_KINDS if name in there},
            images=[int(n) for n in there.get("num_images", [1] * size)],
            tiles=None if tiles is None else [int(n) for n in tiles],
        )

    @cached_property
    def shown(self) -> list[bool]:
        """Which sequences have an image."""
        return [n > 0 for n in self.images]

    @cached_property
    def pieces(self) -> Mapping[str, Sequence[Tensor]]:
        """Every tensor of pixels, cut by sequence."""
        return {name: value.split(self._rows(name)) for name, value in self.pixels.items()}

    def _rows(self, name: str) -> list[int]:
        """Rows of a tensor that belong to each sequence."""
        by_image, value = list(self.images), self.pixels[name]
        if name in ("image_grid_thw", "image_position_ids", "image_sizes"):
            return by_image
        if "image_grid_thw" in self.pixels and name == "pixel_values":
            grids = self.pixels["image_grid_thw"].prod(-1).split(by_image)
            return [int(grid.sum()) for grid in grids]
        if self.tiles is not None and (name != "pixel_attention_mask" or "spatial_shapes" in self.pixels):
            return list(self.tiles)
        if name == "pixel_values" and len(value) == sum(by_image):
            return by_image
        return [1] * self.size

    @cached_property
    def alike_B(self) -> Int[Tensor, " B"]:
        """For each sequence the first one that shows the same images."""
        first: list[int] = []
        for row in range(self.size):
            same = (r for r in sorted(set(first)) if self._same(r, row))
            first.append(next(same, row))
        return torch.tensor(first)

    def _same(self, one: int, other: int) -> bool:
        return all(torch.equal(parts[one], parts[other]) for parts in self.pieces.values())

    def inputs(self, numbers: Int[Tensor, " N"], columns: slice) -> dict[str, Tensor]:
        """What a forward over some of the sequences takes beside their tokens, which stand in these columns."""
        rows = numbers.tolist()
        given = {name: value[numbers.to(value.device), columns] for name, value in self.kinds.items()}
        if any(self.shown[row] for row in rows):
            given |= {name: torch.cat([parts[row] for row in rows]) for name, parts in self.pieces.items()}
        return given
