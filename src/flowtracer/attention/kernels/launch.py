"""Head-mean attention of one layer on a GPU, in two Triton kernels that never write the map of a head.

`LayerKernel` holds one layer's queries and keys with the statistics of all its softmax rows, two float32 numbers for a
row and head. They are computed once, in one launch, and serve every panel of every sweep. `add_rows` is one launch
more, for one panel, and adds to what earlier layers left there.

It knows tensors only: `attention/panels.py` decides which layers run here, and `reference.py` says the same in float64.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.shapes import Bool, Float, Int

try:
    import triton

    from flowtracer.attention.kernels import rows as _rows
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "expected the package triton, which runs the kernels, got none: pip install triton, "
        "or ask for implementation='torch'"
    ) from error

INTERPRETED = not isinstance(_rows.add_mean_rows, triton.JITFunction)
"""Whether Triton's interpreter runs the kernels, on a CPU: TRITON_INTERPRET was set before this module was loaded."""

PART = 16
"""The smallest width of a product that Triton takes."""

WIDEST_HEAD = 256
"""Wider heads would not leave room for two blocks of them in shared memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """How a launch cuts its work; each a power of two, rows and columns at least 16."""

    rows: int
    columns: int
    warps: int
    stages: int


def default_tiles(dtype: torch.dtype, width: int, *, masked: bool = False) -> Tiles:
    """Large tiles of which, by the compiler's report, no register spills and that fit the smallest shared memory.

    Exact products run outside of the matrix units, and masks and segments take registers of their own.
    """
    if dtype == torch.float32 or width > 128 or masked:
        return Tiles(rows=64, columns=64, warps=8, stages=2)
    return Tiles(rows=128, columns=128, warps=8, stages=2)


def block_width(dtype: torch.dtype, width: int) -> int:
    """How much of a head's width a program holds at once: exact float32 products need it in parts."""
    return PART if dtype == torch.float32 else max(PART, triton.next_power_of_2(width))


def refusal(
    query_BHTD: Float[Tensor, "B H T D"],
    key_BKTD: Float[Tensor, "B K T D"],
    *,
    scale: float,
    mask: object,
    position_bias: object,
) -> str | None:
    """What about a layer the kernels do not take, in words; None when they take it."""
    if query_BHTD.device.type != "cuda" and not INTERPRETED:
        return f"tensors on {query_BHTD.device.type}"
    if query_BHTD.device.type == "cuda" and torch.cuda.get_device_capability(query_BHTD.device) < (8, 0):
        return "a GPU older than sm_80"
    if query_BHTD.dtype not in (torch.float32, torch.bfloat16, torch.float16) or query_BHTD.dtype != key_BKTD.dtype:
        return f"queries and keys in {query_BHTD.dtype} and {key_BKTD.dtype}"
    if query_BHTD.shape[-1] > WIDEST_HEAD:
        return f"heads of width {query_BHTD.shape[-1]}, above {WIDEST_HEAD}"
    if position_bias is not None:
        return "a position bias"
    if mask is not None and not isinstance(mask, Tensor):
        return "a mask that is a rule"
    if isinstance(mask, Tensor) and mask.shape[1] > 1 and mask.stride(1) != 0:
        return "a mask of its own for each head"
    if not 0 < scale < math.inf:
        return f"scores scaled by {scale}"
    return None


class LayerKernel:
    """One layer's rows of attention, summed over its heads.

    Args:
        query_BHTD: Queries, any strides.
        key_BKTD: Keys, `H` a multiple of `K`.
        scale: What dot products are multiplied by; positive.
        mask: Allowed pairs, or what is added to the scores, causal and the same for all heads; None: causal.
        segments_BT: Tokens attend within their own segment only, and segment 0 is padding; as `window`, besides a mask.
        window: How many latest tokens, its own included, a token attends to.
        softcap: Scores are squashed to this by tanh.
        sinks_H: A learned extra logit of each head.
        tiles: How to cut the work; None for what suits the type and width.
    """

    def __init__(
        self,
        query_BHTD: Float[Tensor, "B H T D"],
        key_BKTD: Float[Tensor, "B K T D"],
        *,
        scale: float,
        mask: Bool[Tensor, "#B #H T T"] | Float[Tensor, "#B #H T T"] | None = None,
        segments_BT: Int[Tensor, "B T"] | None = None,
        window: int | None = None,
        softcap: float | None = None,
        sinks_H: Float[Tensor, " H"] | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        reason = refusal(query_BHTD, key_BKTD, scale=scale, mask=mask, position_bias=None)
        if reason is not None:
            raise InputError(f"expected attention that the kernels take, got {reason}; use implementation='torch'")
        self.device = query_BHTD.device
        self._batch, self._heads, self._length, width = query_BHTD.shape
        self._tiles = tiles or default_tiles(
            query_BHTD.dtype, width, masked=mask is not None or segments_BT is not None
        )
        natural = softcap is not None or (mask is not None and mask.dtype != torch.bool)
        no_strides, no_mask = (0, 0, 0), query_BHTD  # an absent tensor is never read: any pointer does
        mask_BTT = None if mask is None else _as_stored(mask).expand(self._batch, -1, -1, -1)[:, 0]
        self._segments_BT = query_BHTD if segments_BT is None else segments_BT.to(torch.int32).contiguous()
        self._mask = no_mask if mask_BTT is None else mask_BTT
        self._query, self._key = query_BHTD, key_BKTD
        self._strides = (
            *query_BHTD.stride(),
            *key_BKTD.stride(),
            *(no_strides if mask_BTT is None else mask_BTT.stride()),
        )
        never = 0.0 if mask is None or mask.dtype == torch.bool else torch.finfo(mask.dtype).min / 2
        unit = (1.0 if natural else float(scale)) * math.log2(math.e)
        self._scalars = (self._length if window is None else window, float(scale), float(softcap or 1.0), unit, never)
        self._options: dict[str, Any] = {
            "HEADS": self._heads,
            "GROUP": self._heads // key_BKTD.shape[1],
            "WIDTH": width,
            "BLOCK_D": block_width(query_BHTD.dtype, width),
            "MASK": 0 if mask is None else 1 if mask.dtype == torch.bool else 2,
            "SEGMENTS": segments_BT is not None,
            "NATURAL": natural,
            "SOFTCAP": softcap is not None,
            # The interpreter multiplies the bits of bfloat16; in float32 the products are the same numbers.
            "WIDEN": INTERPRETED and query_BHTD.dtype == torch.bfloat16,
            "BY_PARTS": query_BHTD.dtype == torch.float32,
            "BLOCK_P": self._tiles.rows,
            "BLOCK_C": self._tiles.columns,
            # Also where Triton's default is to come off: scores are subtracted before they are scaled, so nothing
            # that could cancel is fused.
            "enable_fp_fusion": True,
            "num_warps": self._tiles.warps,
            "num_stages": self._tiles.stages,
        }
        self._highest, self._inverse = self._row_statistics(sinks_H)

    def _row_statistics(self, sinks_H: Float[Tensor, " H"] | None) -> tuple[Tensor, Tensor]:
        """Each row's largest score and the reciprocal of its sum of exponentials, by head."""
        shape = (self._batch, self._heads, self._length)
        highest_BHT, inverse_BHT = torch.empty(2, *shape, dtype=torch.float32, device=self.device)
        sinks = self._query if sinks_H is None else sinks_H.float().contiguous()
        grid = (triton.cdiv(self._length, self._tiles.rows), self._batch * self._heads)
        with _on(self.device):
            _rows.row_statistics[grid](
                self._query,
                self._key,
                highest_BHT,
                inverse_BHT,
                sinks,
                self._segments_BT,
                self._mask,
                *self._strides,
                self._length,
                *self._scalars,
                SINKS=sinks_H is not None,
                **self._options,
            )
        return highest_BHT, inverse_BHT

    def add_rows(self, total_BPC: Float[Tensor, "B P C"], start: int, share: float) -> None:
        """Add `share` times the sum over heads of rows `start..start+P`, strictly lower triangular, in place."""
        count, stop = total_BPC.shape[1:]
        tiles = triton.cdiv(count, self._tiles.rows) * triton.cdiv(stop, self._tiles.columns)
        with _on(self.device):
            _rows.add_mean_rows[tiles, self._batch](
                total_BPC,
                self._query,
                self._key,
                self._highest,
                self._inverse,
                self._segments_BT,
                self._mask,
                *total_BPC.stride()[:2],
                *self._strides,
                start,
                stop,
                self._length,
                *self._scalars,
                share,
                **self._options,
            )


def _as_stored(mask: Tensor) -> Tensor:
    """Booleans as the bytes they are."""
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current GPU, whatever its tensors live on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
