"""Attention weighted by what it does to the answer: `sum_h relu(W_h[k,i] dlog p(answer) / dW_h[k,i])`.

Source: Chefer et al., "Generic Attention-model Explainability", ICCV 2021, arXiv 2103.15679, here with log p of the
answer's tokens. A head's output is `o_k = sum_i W[k,i] v_i`, so with `g_k` the gradient at that output

    dlog p / dW[k,i] = <g_k, v_i>

and one backward pass through the model to the heads' outputs gives all of it: maps are made a panel at a time.

*Floor.* An edge may be zero on every way from the question, and behind the last position that predicts the answer
all are. So a hundredth of a row's mass is spread as its attention is, and a row of zeros is its attention: what
attention reaches stays in reach. Where what a token keeps counts, it is `relu(<gradient, residual>)`, by the same
rule.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from flowtracer.attention.capacity.base import Asked, LayerCapacity, add_to_diagonal, row_shares, there
from flowtracer.shapes import Float

FLOOR = 0.01
"""Share of a row's mass that is spread as attention is: small beside any edge that matters, and never zero."""

_NOTHING = 1e-30
"""Mass of a row of zeros: below any gradient that a float32 pass can tell from zero, and a normal number."""


class GradientCapacity(LayerCapacity):
    """What attention adds to the answer's probability, to first order."""

    tokens: ClassVar[Asked] = frozenset({"values", "gradient"})
    layered: ClassVar[Asked] = tokens | {"residual"}

    def contributions(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Positive parts, summed over heads, with the floor; the residual's on the diagonal."""
        gradient_BHTD = there(self.values.gradient_BHTD, "gradients")
        weights_BHPC = self.layer.weights(start, stop)
        value_BHCD = self.values.by_head(weights_BHPC.shape[1], stop)
        slope_BHPC = gradient_BHTD[:, :, start:stop].float() @ value_BHCD.mT
        attended_BPC = row_shares(weights_BHPC.sum(1))
        gained_BPC = slope_BHPC.mul_(weights_BHPC).relu_().sum(1)
        if self.values.kept_BT is not None:
            add_to_diagonal(gained_BPC, start, self.values.kept_BT[:, start:stop].relu())
            add_to_diagonal(attended_BPC, start, 1.0)
            attended_BPC = row_shares(attended_BPC)
        mass_BP1 = (FLOOR * gained_BPC.sum(-1, keepdim=True)).clamp_min(_NOTHING)
        return torch.addcmul(gained_BPC, attended_BPC, mass_BP1)
