"""Sure errors cost more, sure right answers earn more: inspired by arXiv 2606.08088 (ConSteer-RL).

1. `c = exp(mean_t log p(y_t))`, the geometric mean of the response's token probabilities.
2. `r' = r + weight c` where the response is right, `r - weight c` where it is wrong.
3. Centred over the group: `A_t = A + weight (s c - mean_group s c)`, `s` 1 where right, -1 where wrong.

A credit of sequences, not of tokens: all tokens of a response get the same. Known of the source is its abstract:
aggregated token probabilities shape the reward, so that overconfident errors are penalised and confident right answers
reinforced. Our own choices: the geometric mean, `weight = 0.5`, a response being right from a reward of `right` on, and
no division by the group's deviation. The group is what of it is on this process.
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
    """A + `weight` (s c - mean s c of the group), s the sign of being right: a reward of at least `right`."""

    weight: float = 0.5
    right: float = 0.5

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise InputError(f"expected weight of at least 0, that of the confidence, got {self.weight}")

    @property
    def reads(self) -> Reads:
        """The group, and logits."""
        return Reads(needs={"group", "logits"})

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The advantage of the shaped reward, on every token."""
        mask_BR, groups_B = signals.mask_BR, signals.group.groups_B
        log_prob_B = (signals.logits.log_prob_BR * mask_BR).sum(-1) / mask_BR.sum(-1).clamp_min(1)
        shaping_B = torch.where(signals.group.rewards_B >= self.right, 1.0, -1.0) * log_prob_B.exp()
        same_BB = (groups_B[:, None] == groups_B).to(shaping_B.dtype)
        centred_B = shaping_B - same_BB @ shaping_B / same_BB.sum(-1)
        shaped_B = signals.advantages_B + self.weight * centred_B.to(signals.advantages_B.dtype)
        return shaped_B[:, None] * torch.ones(mask_BR.shape, device=mask_BR.device)
