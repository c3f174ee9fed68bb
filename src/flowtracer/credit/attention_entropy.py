"""Credit moves from tokens that look at few to tokens that look at many: inspired by arXiv 2605.07660.

1. `E_t`: entropy of token `t`'s row of attention, averaged over heads and layers, over the log of the number of tokens
   that it could attend to. Low entropy marks an anchor, a token that reads a few others.
2. Of the `ceil(ratio n)` boosted tokens, the share `trained` (how much of the training is done) is taken from
   the highest entropies, the rest from the lowest.

Reported by the source: averaged rows, the division by log(context), low entropy as anchors, and that weight moves from
low to high during training. Not public, so our own choices: the middle third of the layers, the linear schedule,
and the boost, which is flow's, top 40 % times 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit, ranks, share_count
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionEntropyCredit(BoostCredit):
    """w = `gamma` on `ratio` of the tokens, from the lowest row entropies first to the highest at the end."""

    layers: Sequence[int] | None = None

    @property
    def reads(self) -> Reads:
        """Attention."""
        return Reads(needs={"attention"}, layers=self.layers)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Minus the entropy of the row: anchors first."""
        return -signals.attention.row_entropy_BR

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The boost, shared between both ends by how far the training is."""
        scores_BR = self.scores(signals)
        place_BR = ranks(-scores_BR if self.keep == "bottom" else scores_BR, signals.mask_BR)
        boosted_B1 = share_count(signals.mask_BR, self.ratio)[:, None]
        late_B1 = (boosted_B1 * signals.trained).round()
        counted_B1 = signals.mask_BR.sum(-1, keepdim=True)
        chosen_BR = (place_BR < boosted_B1 - late_B1) | (place_BR >= counted_B1 - late_B1)
        return torch.where(chosen_BR & signals.mask_BR, self.gamma, 1.0)
