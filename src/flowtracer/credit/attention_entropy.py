"""Credit moves from tokens that look at few to tokens that look at many: inspired by arXiv 2605.07660.

1. `E_t`: entropy of token `t`'s row of attention, averaged over heads and layers, over the log of the number of tokens
   that it could attend to. Low entropy marks an anchor, a token that reads a few others; high entropy an explorer.
2. `w_t = 1 + strength (1 - 2 p)(1 - 2 rank_t)`: `rank_t` the token's place by entropy among its response's, from 0 for
   the lowest to 1 for the highest, `p` how much of the training is done. The mean is 1.

Known of the source are its abstract and a reader's notes: averaged rows of fixed middle layers, the division by
log(context), low entropy as anchors, and soft, continuous weights that move from low to high during training. Our own
choices: the form of the weights, the linear schedule, `strength = 0.5`, and the middle third of the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import ranks
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionEntropyCredit:
    """w from 1 + `strength` at the lowest row entropies to 1 - `strength` at the highest; at the end the other way."""

    strength: float = 0.5
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise InputError(f"expected strength in [0, 1], the most that a weight moves, got {self.strength}")

    @property
    def reads(self) -> Reads:
        """Attention."""
        return Reads(needs={"attention"}, layers=self.layers)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Minus the entropy of the row: anchors first, as at the beginning of the training."""
        return -signals.attention.row_entropy_BR

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Soft weights of mean 1."""
        last_B1 = signals.mask_BR.sum(-1, keepdim=True) - 1
        rank_BR = torch.where(last_B1 > 0, ranks(self.scores(signals), signals.mask_BR) / last_B1.clamp_min(1), 0.5)
        weights_BR = 1 + self.strength * (1 - 2 * signals.trained) * (1 - 2 * rank_BR)
        return torch.where(signals.mask_BR, weights_BR, 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
