"""Attention weighted by what it moves: `sum_h W_h[k,i] |W_O^h v_i|_2`.

Source: Kobayashi et al., "Attention is Not Only a Weight", EMNLP 2020, arXiv 2004.10102. A token that is attended
to for want of a better one, such as the first, has small values, and loses the mass that attention wastes on it.
The norm is taken head by head, so that heads which cancel each other count both. Where what a token keeps counts,
it is the norm of what the token holds as it enters the layer.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from flowtracer.attention.capacity.base import Asked, LayerCapacity, add_to_diagonal, there
from flowtracer.shapes import Float


class ValueCapacity(LayerCapacity):
    """Norms of what each head moves, summed over heads."""

    tokens: ClassVar[Asked] = frozenset({"values", "projection"})
    layered: ClassVar[Asked] = tokens | {"residual"}

    def contributions(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """`sum_h W_h[k,i] |W_O^h v_i|`, and the norm of the residual on the diagonal."""
        weights_BHPC = self.layer.weights(start, stop)
        moved_BPC = weights_BHPC.mul_(self._norm_BHT[:, :, None, :stop]).sum(1)
        if self.values.residual_BTM is not None:
            kept_BP = torch.linalg.vector_norm(self.values.residual_BTM[:, start:stop].float(), dim=-1)
            add_to_diagonal(moved_BPC, start, kept_BP)
        return moved_BPC

    @cached_property
    def _norm_BHT(self) -> Float[Tensor, "B H T"]:
        """Norm of each value in the hidden state, a head at a time: all heads at once would take H times T x M."""
        value_BKTD = self.values.value_BKTD.float()
        projection_HDM = there(self.values.projection_HDM, "output projection").float()
        shared = len(projection_HDM) // value_BKTD.shape[1]
        norms = [
            torch.linalg.vector_norm(value_BKTD[:, h // shared] @ projection_DM, dim=-1)
            for h, projection_DM in enumerate(projection_HDM)
        ]
        return torch.stack(norms, 1)
