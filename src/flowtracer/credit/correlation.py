"""Boost the tokens whose presence goes with success within the group: ours, by the name of a baseline.

Score of a token with vocabulary id `v`: `|corr_g(c_g(v), r_g)|`, the correlation, over the responses `g` of the same
group, of whether `g` contains `v` with its reward. A token that all responses share, or that right and wrong ones
contain alike, scores 0; one that only right or only wrong ones contain scores high, and the sign of the advantage
says which it is.

Source: arXiv 2606.10646 reports a correlation baseline (37.4 against 39.6 for random) without its formula; notes gloss
it as mutual dependence between tokens, a signal of the response itself. This is another one, inspired by its name at
best: presence of the token in the group is our own choice, and so is the absolute value. The group is what of it is on
this process. A group whose responses are all equally good gets plain GRPO, which leaves it no advantage anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelationCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by correlation with success."""

    @property
    def reads(self) -> Reads:
        """The group."""
        return Reads(needs={"group"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Correlation of each token's presence with reward, without its sign."""
        ids_BR, groups_B, rewards_B = signals.group.token_ids_BR, signals.group.groups_B, signals.group.rewards_B
        scores_BR = rewards_B.new_zeros(ids_BR.shape, dtype=torch.float32)
        for group in groups_B.unique():
            rows = (groups_B == group).nonzero().squeeze(-1)
            scores_BR[rows] = _correlations(ids_BR[rows], signals.mask_BR[rows], rewards_B[rows].float())
        return scores_BR

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses of groups with different rewards."""
        groups_B, rewards_B = signals.group.groups_B, signals.group.rewards_B
        same_BB = groups_B[:, None] == groups_B
        return (same_BB & (rewards_B[:, None] != rewards_B)).any(-1)


def _correlations(
    ids_GR: Int[Tensor, "G R"], mask_GR: Bool[Tensor, "G R"], rewards_G: Float[Tensor, " G"]
) -> Float[Tensor, "G R"]:
    """|Pearson correlation| over a group, for the token that stands at each place."""
    vocabulary, index_GR = ids_GR.unique(return_inverse=True)
    counts_GV = torch.zeros(len(ids_GR), len(vocabulary), device=ids_GR.device)
    counts_GV.scatter_add_(1, index_GR, mask_GR.float())
    return correlations_with(rewards_G, (counts_GV > 0).float()).abs()[index_GR]


def correlations_with(rewards_G: Float[Tensor, " G"], values_GV: Float[Tensor, "G V"]) -> Float[Tensor, " V"]:
    """Pearson's correlation over a group of each column with the reward; 0 where one of them does not vary."""
    values_GV = values_GV - values_GV.mean(0)
    rewards_G1 = (rewards_G - rewards_G.mean())[:, None]
    scale_V = values_GV.norm(dim=0) * rewards_G1.norm()
    return torch.where(scale_V > 1e-6, (values_GV * rewards_G1).sum(0) / scale_V.clamp_min(1e-6), 0.0)
