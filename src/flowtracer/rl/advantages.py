"""Credit into advantages: pure functions of tensors, for any trainer that takes a per-token stream."""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.shapes import Bool, Float


def weighted_advantages(advantages_B: Float[Tensor, " B"], weights_BR: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Each response's advantage times its tokens' factors; with factors of 1, the advantage to the bit."""
    return advantages_B[:, None] * weights_BR.to(advantages_B.dtype)


def normalised(weights_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """Factors scaled so that their mean over each response's counted tokens is 1.

    A boost alone makes the policy term larger (1.2 times by the paper's defaults); this keeps its size and moves only
    where it lands.
    """
    counted_BR = mask_BR.to(weights_BR.dtype)
    total_B1 = (weights_BR * counted_BR).sum(-1, keepdim=True)
    scale_B1 = counted_BR.sum(-1, keepdim=True) / total_B1
    return weights_BR * torch.where(total_B1 > 0, scale_B1, 1.0)


def boosted_share(weights_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, ""]:
    """Share of counted tokens whose factor is above 1."""
    return ((weights_BR > 1) & mask_BR).sum() / mask_BR.sum().clamp_min(1)
