"""What the attention of one layer moves, beside the weights that it moves it with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowtracer.shapes import Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerValues:
    """Values of one layer, and what else a capacity may ask for; None is what was not asked for.

    The layer gives token `k` the update `sum_h sum_i W_h[k,i] W_O^h v_i`, which is added to what the token holds.
    """

    value_BKTD: Float[Tensor, "B K T D"]
    projection_HDM: Float[Tensor, "H D M"] | None = None
    """W_O by head: what a head's value becomes in the hidden state."""
    residual_BTM: Float[Tensor, "B T M"] | None = None
    """What each token holds as it enters the layer, in the scale of the update."""
    gradient_BHTD: Float[Tensor, "B H T D"] | None = None
    """Gradient of log p(answer) at the output of each head."""
    kept_BT: Float[Tensor, "B T"] | None = None
    """Gradient of log p(answer) at the sum of residual and update, times the residual."""

    def heads(self, index_N: Int[Tensor, " N"], count: int) -> LayerValues:
        """Only the chosen ones of `count` heads."""
        shared = count // self.value_BKTD.shape[1]
        return replace(
            self,
            value_BKTD=self.value_BKTD[:, index_N // shared],
            projection_HDM=None if self.projection_HDM is None else self.projection_HDM[index_N],
            gradient_BHTD=None if self.gradient_BHTD is None else self.gradient_BHTD[:, index_N],
        )

    def part(self, rows: slice | Int[Tensor, " N"], start: int, stop: int) -> LayerValues:
        """Tokens `start..stop` of some rows of the batch."""
        residual, gradient, kept = self.residual_BTM, self.gradient_BHTD, self.kept_BT
        return replace(
            self,
            value_BKTD=self.value_BKTD[rows, :, start:stop],
            residual_BTM=None if residual is None else residual[rows, start:stop],
            gradient_BHTD=None if gradient is None else gradient[rows, :, start:stop],
            kept_BT=None if kept is None else kept[rows, start:stop],
        )

    def by_head(self, heads: int, stop: int) -> Float[Tensor, "B H T D"]:
        """Values of tokens `0..stop` as each of `heads` heads sees them, in float32."""
        value_BKTD = self.value_BKTD[:, :, :stop].float()
        return torch.repeat_interleave(value_BKTD, heads // value_BKTD.shape[1], 1)
