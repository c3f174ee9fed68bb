"""What the kernels compute, in float64 and as it is written: one row of one head at a time.

The twin of `launch.LayerKernel`, with its signature, and the judge of it. It runs anywhere and needs no Triton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowtracer.shapes import Bool, Float, Int

if TYPE_CHECKING:
    from flowtracer.attention.kernels.launch import Tiles


class LayerReference:
    """One layer's rows of attention, summed over its heads; the arguments are those of `LayerKernel`."""

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
        self._query_BHTD, self._key_BKTD = query_BHTD.double(), key_BKTD.double()
        self._scale, self._softcap, self._window = scale, softcap, window
        self._mask = None if mask is None else mask.expand(len(query_BHTD), -1, -1, -1)
        self._segments_BT, self._sinks_H = segments_BT, sinks_H
        # `tiles` say how a launch cuts its work; here nothing is cut.

    def add_rows(self, total_BPC: Float[Tensor, "B P C"], start: int, share: float) -> None:
        """Add `share` times the sum over heads of rows `start..start+P`, strictly lower triangular, in place."""
        batch, heads, _, _ = self._query_BHTD.shape
        for b in range(batch):
            for k in range(start, start + total_BPC.shape[1]):
                for h in range(heads):
                    total_BPC[b, k - start, :k] += share * self._row(b, h, k)[:-1].to(total_BPC)

    def _row(self, b: int, h: int, k: int) -> Float[Tensor, " C"]:
        """Softmax of row `k` over itself and all before it; zero where it may attend to nothing."""
        key_TD = self._key_BKTD[b, h // (self._query_BHTD.shape[1] // self._key_BKTD.shape[1])]
        scores_C = key_TD[: k + 1] @ self._query_BHTD[b, h, k] * self._scale
        if self._softcap is not None:
            scores_C = self._softcap * torch.tanh(scores_C / self._softcap)
        allowed_C = torch.ones(k + 1, dtype=torch.bool, device=scores_C.device)
        if self._window is not None:
            allowed_C[: max(0, k + 1 - self._window)] = False
        if self._segments_BT is not None:
            segments_C = self._segments_BT[b, : k + 1]
            allowed_C &= (segments_C == segments_C[-1]) & (segments_C > 0)
        if self._mask is not None:
            mask_C = self._mask[b, 0, k, : k + 1]
            additive = mask_C.dtype != torch.bool
            allowed_C &= mask_C > torch.finfo(mask_C.dtype).min / 2 if additive else mask_C
            scores_C = scores_C + mask_C if additive else scores_C
        weights_C = torch.zeros_like(scores_C)
        if allowed_C.any():
            sink = [] if self._sinks_H is None else [self._sinks_H[h : h + 1].double()]
            weights_C[allowed_C] = torch.cat([scores_C[allowed_C], *sink]).softmax(0)[: int(allowed_C.sum())]
        return weights_C
