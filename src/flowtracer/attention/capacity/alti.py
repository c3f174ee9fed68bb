"""What arrives: how much nearer to a layer's output each token brings it (ALTI).

Source: Ferrando et al., "Measuring the Mixing of Contextual Information in the Transformer", EMNLP 2022, arXiv
2203.04212. The output of the attention block at token `k`, what the token holds included, is a sum over tokens:

    y_k = sum_i y_ki,    y_ki = sum_h W_h[k,i] W_O^h v_i,  plus the residual x_k for i = k
    c[k,i] = max(0, |y_k|_1 - |y_k - y_ki|_1),  rows normalised

The norm is taken of the sum over heads, so heads that cancel each other cancel; the bias of W_O is nobody's. Our own
choice where the source has post-norm encoders: the residual is what enters the block, before its norm.

`y_ki` has the model's width, for every pair. It is made for a few columns at a time, `W_O^h v_i` included, in a
working memory that stays in the cache: nothing outlives a panel.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from flowtracer.attention.capacity.base import Asked, LayerCapacity, row_shares, there
from flowtracer.shapes import Float

_CHUNK_BYTES = {"cpu": 4 * 2**20}
"""Working memory of `y_ki` for a few columns: larger ones leave a CPU's cache."""
_GPU_CHUNK_BYTES = 256 * 2**20


class AltiCapacity(LayerCapacity):
    """Contributions by distance, what a token keeps included."""

    tokens: ClassVar[Asked] = frozenset({"values", "projection", "residual"})
    layered: ClassVar[Asked] = tokens

    def contributions(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Shares of each row: they sum to 1."""
        projection_HDM = there(self.values.projection_HDM, "output projection").float()
        residual_BPM = there(self.values.residual_BTM, "residual")[:, start:stop].float()
        weights_BHPC = self.layer.weights(start, stop)
        value_BHCD = self.values.by_head(weights_BHPC.shape[1], stop)
        output_BPM = residual_BPM + torch.einsum("bhpd,hdm->bpm", weights_BHPC @ value_BHCD, projection_HDM)
        nearer = [
            _nearer(weights_HPC, value_HCD, projection_HDM, output_PM, residual_PM, start)
            for weights_HPC, value_HCD, output_PM, residual_PM in zip(
                weights_BHPC, value_BHCD, output_BPM, residual_BPM, strict=True
            )
        ]
        return row_shares(torch.stack(nearer).clamp_min_(0.0).tril_(start))


def _nearer(
    weights_HPC: Float[Tensor, "H P C"],
    value_HCD: Float[Tensor, "H C D"],
    projection_HDM: Float[Tensor, "H D M"],
    output_PM: Float[Tensor, "P M"],
    residual_PM: Float[Tensor, "P M"],
    start: int,
) -> Float[Tensor, "P C"]:
    """|y_k|_1 - |y_k - y_ki|_1 of one sequence, a few columns at a time; 0 for rows before all of these columns."""
    (rows, columns), width = weights_HPC.shape[1:], output_PM.shape[1]
    budget = _CHUNK_BYTES.get(weights_HPC.device.type, _GPU_CHUNK_BYTES)
    size = max(1, budget // (4 * rows * width))
    whole_PM = output_PM.abs()
    nearer_PC = output_PM.new_zeros(rows, columns)
    for first in range(0, columns, size):
        last = min(first + size, columns)
        top = max(0, first - start)  # earlier rows do not see these columns
        moved_CHM = (value_HCD[:, first:last] @ projection_HDM).transpose(0, 1)
        weights_CPH = weights_HPC[:, top:, first:last].permute(2, 1, 0)
        rest_CPM = torch.baddbmm(output_PM[top:].expand(last - first, -1, -1), weights_CPH, moved_CHM, alpha=-1)
        # Tokens that are rows and columns of this piece give what they hold as well.
        own = torch.arange(max(first, start), max(last, start), device=rest_CPM.device)
        rest_CPM[own - first, own - start - top] -= residual_PM[own - start]
        # Channel by channel: the difference of two sums would lose what a small contribution is.
        nearer_PC[top:, first:last] = torch.sub(whole_PM[top:], rest_CPM.abs_(), out=rest_CPM).sum(-1).T
    return nearer_PC
