"""Boost the tokens through which right and wrong responses of a group let different amounts flow: ours.

Flow alone cannot tell a right chain of thought from a coherent wrong one; a group holds both. Score of a token with
vocabulary id `v`: `|corr_g(m_g(v), r_g)|`, the correlation, over the traced responses `g` of its group, of the flow
mass `m_g(v) = sum_{t: y_gt = v} tau_gt` that passes through all its places with the reward. `correlation` asks the same
of the token's mere presence. A response that was not traced has no mass, takes no part, and gets plain GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowtracer.credit.correlation import correlations_with
from flowtracer.credit.flow import FlowBoost
from flowtracer.credit.signals import Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowContrastCredit(FlowBoost):
    """w = `gamma` on the top `ratio` of a response's tokens by how far their flow goes with success in the group.

    Options as of `flow`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"flow", "group"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Correlation of the flow through each token's places with reward, without its sign."""
        return contrast(signals).abs()

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Traced responses, of groups whose traced responses have different rewards."""
        rewards_B = signals.group.rewards_B
        found_B = torch.zeros_like(signals.flow.traced_B)
        for rows in _traced_groups(signals):
            found_B[rows] = bool((rewards_B[rows] != rewards_B[rows[0]]).any())
        return found_B


def contrast(signals: Signals) -> Float[Tensor, "B R"]:
    """Correlation of the flow through each token's places with reward, in its group; 0 where nothing was traced."""
    mass_BR = signals.flow.throughput_BR.float() * signals.mask_BR
    found_BR = torch.zeros_like(mass_BR)
    for rows in _traced_groups(signals):
        vocabulary, index_GR = signals.group.token_ids_BR[rows].unique(return_inverse=True)
        mass_GV = mass_BR.new_zeros(len(rows), len(vocabulary)).scatter_add_(1, index_GR, mass_BR[rows])
        found_BR[rows] = correlations_with(signals.group.rewards_B[rows].float(), mass_GV)[index_GR]
    return found_BR


def _traced_groups(signals: Signals) -> list[Tensor]:
    """Rows of the traced responses of each group that has some."""
    groups_B, traced_B = signals.group.groups_B, signals.flow.traced_B
    return [((groups_B == group) & traced_B).nonzero().squeeze(-1) for group in groups_B[traced_B].unique()]
