"""VPPO: learn from the tokens that a half-black image makes another likely, most from who looks (arXiv 2510.09285).

1. `d_t = log p(y_t | blackened image) - log p(y_t | image)`, cut to -20..20; squares of 14 pixels are black with
   probability 0.5. `K_t = exp(d_t) - d_t - 1`, at most 10.
2. In each response the `ceil(0.4 n)` of its `n` tokens with the largest `K_t` are learned from; the others get 0. The
   loss divides by the number of all tokens.
3. `m`: mean of `K_t` over a response, min-max over the batch to `m'`. All of the response's advantages are multiplied
   by `lowest + (highest - lowest) m'`, `lowest` 0.9, `highest = lowest + (1 - lowest) / mean m'`, so that the mean is
   1; where the responses differ by 1e-6 at most, by 1.

As in the official code (huaixuheqing/VPPO-RL). Its mean of `m'` is a micro-batch's, its extremes a mini-batch's; ours
are both what a process sampled in one go. It blackens the picture before it is resized to the model's grid, ours what
the model is shown. Its entropy penalty is no matter of credit. A response without an image gets plain GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_share, top_share
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float

LARGEST = 10.0
FARTHEST = 20.0
ALIKE = 1e-6
"""Means over responses within which they count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualMaskCredit:
    """The response's scale on its top `ratio` of tokens by what the image does to them, else 0."""

    ratio: float = 0.4
    lowest: float = 0.9

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)
        if not 0 < self.lowest <= 1:
            raise InputError(f"expected lowest in (0, 1], the smallest scale of a response, got {self.lowest}")

    @property
    def reads(self) -> Reads:
        """Log-probabilities, with the image as it is and half black."""
        return Reads(needs={"logits", "blackened"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Divergence, estimated from the token alone."""
        apart_BR = signals.blackened.blackened_log_prob_BR - signals.logits.log_prob_BR
        apart_BR = apart_BR.clamp(-FARTHEST, FARTHEST)
        return (apart_BR.exp() - apart_BR - 1).clamp(0, LARGEST)

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses to an image."""
        return signals.blackened.shown_B & signals.mask_BR.any(-1)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The scale of the response, or 0."""
        scores_BR, speaks_B = self.scores(signals), self.speaks(signals)
        means_B = (scores_BR * signals.mask_BR).sum(-1) / signals.mask_BR.sum(-1).clamp_min(1)
        scales_B = torch.ones_like(means_B)
        scales_B[speaks_B] = self._scales(means_B[speaks_B])
        kept_BR = top_share(scores_BR, signals.mask_BR, self.ratio)
        counted_BR = signals.mask_BR & speaks_B[:, None]
        return torch.where(counted_BR, scales_B[:, None] * kept_BR, 1.0)

    def _scales(self, means_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        if len(means_N) < 2 or means_N.max() - means_N.min() <= ALIKE:
            return torch.ones_like(means_N)
        share_N = (means_N - means_N.min()) / (means_N.max() - means_N.min())
        highest = self.lowest + (1 - self.lowest) / (share_N.mean() + 1e-8)
        return self.lowest + (highest - self.lowest) * share_N

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
