"""Boost of tokens that depend on the image and hold under noise on it; inspired by PRPO (arXiv 2606.08708).

1. `I_t`: dependence on the image, 0 to 1 (`flowtracer.credit.visual`).
2. `q_t = exp(-|log p(y_t | noisy image) - log p(y_t | image)|)`: 1 where mild noise on the pixels changes nothing.
3. Factor `gamma` on the top `ratio` of tokens by `I_t q_t`, 1 on the rest.

The source amplifies visually grounded and perturbation-stable tokens and keeps the gradient of the others; only its
abstract is known, so both scores, their product, the noise and the boost are our own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.credit.visual import dependence
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualRobustCredit(BoostCredit):
    """Factor `gamma` on the top `ratio` of tokens by dependence times stability, else 1."""

    @property
    def reads(self) -> Reads:
        """Dependence on the image, and log-probabilities with it as it is and noisy."""
        return Reads(needs={"visual", "logits", "noisy"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Dependence times stability."""
        moved_BR = signals.noisy.noisy_log_prob_BR - signals.logits.log_prob_BR
        return dependence(signals.visual.divergence_BR, signals.mask_BR) * (-moved_BR.abs()).exp()

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses to an image."""
        return signals.visual.shown_B & signals.mask_BR.any(-1)
