"""Which token of a prompt is which patch of which picture, told by what a family's processor and configuration say.

1. *Grids* (Qwen2-VL and what follows it): the processor says how many rows and columns of patches each picture has, of
   which the model merges squares of `spatial_merge_size`. Tokens are the merged ones, row by row.
2. *Tiles* (Idefics3, SmolVLM): a run of tokens for each tile stands behind a mark of its row and column, and one for
   the whole picture behind another. A run is a square.
3. *A square* (LLaVA): every picture is made a square, and each of the tower's patches is a token, row by row.
4. Elsewhere tokens are told apart by picture alone, and are a row in their order. A family whose tokens are mixtures of
   the whole picture has no more to say.

Nothing is guessed from a number of tokens that happens to be a square: 1 to 3 hold only where their counts come out
exactly as the configuration has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from flowtracer.shapes import Int, ndarray

Views = tuple[Int[ndarray, "_ _"], ...]
"""Tokens of a picture, a grid a view; see `TraceImage.views`."""
_TILE = re.compile(r"<row_(\d+)_col_(\d+)>")
_WHOLE = "<global-img>"


def views_of(
    config: Any, pieces: Sequence[str], tokens: Int[ndarray, " N"], given: Mapping[str, Any], pictures: int
) -> list[Views] | None:
    """Where the patches of each picture lie; None where that is not known.

    Args:
        config: The model's.
        pieces: The prompt's tokens as the tokenizer names them.
        tokens: Those of images.
        given: What the processor made of the pictures.
        pictures: How many there are.
    """
    tower: Any = getattr(config, "vision_config", None)
    if given.get("image_grid_thw") is not None:
        found = _by_grids(getattr(tower, "spatial_merge_size", 1), tokens, given["image_grid_thw"].tolist())
    elif hasattr(config, "scale_factor"):
        found = _by_tiles(tower.image_size // tower.patch_size // config.scale_factor, pieces, tokens)
    elif shown_in_squares(given, pictures):
        found = _in_squares(getattr(tower, "patch_size", None), tokens, given["pixel_values"])
    else:
        found = None
    return found if found is not None and len(found) == pictures else None


def shown_in_squares(given: Mapping[str, Any], pictures: int) -> bool:
    """Whether the model is shown one square a picture, which may leave some of it out."""
    pixels: Any = given.get("pixel_values")
    return getattr(pixels, "ndim", 0) == 4 and len(pixels) == pictures and pixels.shape[2] == pixels.shape[3]


def _by_grids(merged: int, tokens: Int[ndarray, " N"], grids: Sequence[Sequence[int]]) -> list[Views] | None:
    if any(frames != 1 for frames, *_ in grids):
        return None
    return _cut(tokens, [(rows // merged, columns // merged) for _, rows, columns in grids])


def _by_tiles(side: int, pieces: Sequence[str], tokens: Int[ndarray, " N"]) -> list[Views] | None:
    runs = np.split(tokens, np.flatnonzero(np.diff(tokens) != 1) + 1)
    if any(len(run) != side**2 for run in runs):
        return None
    found: list[Views] = []
    tiles: dict[tuple[int, int], np.ndarray] = {}
    for run in runs:
        square, mark = run.reshape(side, side), pieces[run[0] - 1]
        if place := _TILE.fullmatch(mark):
            tiles[int(place[1]), int(place[2])] = square
        elif mark == _WHOLE and _is_whole(tiles):
            found.append((*_assembled(tiles), square))
            tiles = {}
        else:
            return None
    return None if tiles else found


def _is_whole(tiles: Collection[tuple[int, int]]) -> bool:
    """Whether a tile stands at each place of a grid; there may be none at all."""
    rows, columns = (max((place[axis] for place in tiles), default=0) for axis in (0, 1))
    return set(tiles) == set(product(range(1, rows + 1), range(1, columns + 1)))


def _assembled(tiles: Mapping[tuple[int, int], np.ndarray]) -> Views:
    """Tiles as one grid; none of a picture that was not cut."""
    if not tiles:
        return ()
    rows, columns = max(tiles)
    return (np.block([[tiles[row, column] for column in range(1, columns + 1)] for row in range(1, rows + 1)]),)


def _in_squares(patch: Any, tokens: Int[ndarray, " N"], pixels_NCHW: Any) -> list[Views] | None:
    if not isinstance(patch, int):
        return None
    return _cut(tokens, [(pixels_NCHW.shape[-1] // patch,) * 2] * len(pixels_NCHW))


def _cut(tokens: Int[ndarray, " N"], sides: Sequence[tuple[int, int]]) -> list[Views] | None:
    """Tokens of pictures behind each other; None where there are more or fewer."""
    bounds = np.cumsum([math.prod(side) for side in sides])
    if bounds[-1] != len(tokens):
        return None
    parts = np.split(tokens, bounds[:-1])
    return [(part.reshape(side),) for part, side in zip(parts, sides, strict=True)]
