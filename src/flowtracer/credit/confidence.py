"""Reward shaping by how sure the policy was of the whole response: inspired by arXiv 2606.08088.

1. `c = exp(mean_t log p(y_t))`, the geometric mean of the response's token probabilities.
2. The reward becomes `r + weight c`; within the group that moves each token's advantage by `weight (c - mean c)`.

A credit of sequences, not of tokens: all tokens of a response get the same. The source is known to shape rewards by
an aggregated token probability; which aggregate, and how it enters, is not public. The geometric mean, the sum and
`weight = 0.5` are our own choices; `c` is centred over what of the group is on this process and not divided by its
deviation, so a group of equally sure responses is plain GRPO.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceCredit:
    """A + `weight` (c - mean c of the group)."""

    weight: float = 0.5

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise InputError(f"expected a finite weight of the confidence, got {self.weight}")

    @property
    def reads(self) -> Reads:
        """The group, and logits."""
        return Reads(needs={"group", "logits"})

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The advantage of the shaped reward, on every token."""
        log_prob_BR = signals.logits.log_prob_BR
        groups_B = signals.group.groups_B
        mask_BR = signals.mask_BR
        confidence_B = ((log_prob_BR * mask_BR).sum(-1) / mask_BR.sum(-1).clamp_min(1)).exp()
        same_BB = (groups_B[:, None] == groups_B).to(confidence_B.dtype)
        centred_B = confidence_B - same_BB @ confidence_B / same_BB.sum(-1)
        shaped_B = signals.advantages_B + self.weight * centred_B.to(signals.advantages_B.dtype)
        return shaped_B[:, None] * torch.ones(mask_BR.shape, device=mask_BR.device)
