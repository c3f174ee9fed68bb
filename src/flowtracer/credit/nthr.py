"""Spare the tokens of wrong responses that right ones share: NTHR (arXiv 2505.18830).

1. `s_t` of a token: what a step on it would move the right responses of its group, by gradients at the output layer
   (`flowtracer.signals.alignment`).
2. Anchor: of the right responses the smallest mean of `s_t`, times `beta`.
3. A token of a wrong response with `s_t` above the anchor gets `eta = |1 - 2p|` of its advantage, `p` the share of the
   group that is right: nothing of it where half are right, most of it where few or most are.

Source: notes that give every formula; the official code was not read. Our own choices: a response is right where its
reward is above its group's mean, which is what the advantage says and the same for rewards of 0 and 1, and the group
is what of it is on this process. Probabilities are those at the sampling temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class NthrCredit:
    """w = `|1 - 2p|` on the tokens of wrong responses that are aligned with the right ones, else 1."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        check_beta(self.beta)

    @property
    def reads(self) -> Reads:
        """Alignment with the right responses of the group."""
        return Reads(needs={"alignment", "group"})

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Less on what right responses share."""
        factors_BR = torch.ones(signals.mask_BR.shape, device=signals.mask_BR.device)
        scores_BR, anchors_B, right_B = aligned(signals)
        for group in signals.group.groups_B.unique():
            rows = signals.group.groups_B == group
            eta = (1 - 2 * right_B[rows].float().mean()).abs()
            spared_BR = (rows & ~right_B)[:, None] & (scores_BR > self.beta * anchors_B[:, None])
            factors_BR = torch.where(spared_BR & signals.mask_BR, eta, factors_BR)
        return factors_BR

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))


def aligned(signals: Signals) -> tuple[Float[Tensor, "B R"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """`s_t` of every token, the anchor of each response's group, and which responses are right.

    The anchor is infinite in a group whose responses are all right or all wrong: nothing there is above it.
    """
    groups_B, mask_BR = signals.group.groups_B, signals.mask_BR
    right_B = signals.group.rewards_B > signals.group.baselines_B
    scores_BR = signals.alignment.align(groups_B, right_B)
    means_B = (scores_BR * mask_BR).sum(-1) / mask_BR.sum(-1).clamp_min(1)
    anchors_B = torch.full_like(means_B, torch.inf)
    for group in groups_B.unique():
        rows = groups_B == group
        if bool(right_B[rows].any()) and not bool(right_B[rows].all()):
            anchors_B[rows] = means_B[rows & right_B].min()
    return scores_BR, anchors_B, right_B


def check_beta(beta: float) -> None:
    """Raise unless the factor of the anchor is positive."""
    if not 0 < beta < float("inf"):
        raise InputError(f"expected beta above 0, the factor of the anchor, got {beta}")
