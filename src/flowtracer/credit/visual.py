"""PGPO: credit by how much a token depends on the image (arXiv 2604.01840).

1. `S_t = KL(pi(. | image, text) || pi(. | text))`: what the image tells about the token.
2. `I_t`: `log(1 + S_t)`, min-max over the response to 0..1.
3. `w_t = I_t / tau` below the threshold `tau` 0.4, `1 + beta (I_t - tau) / (1 - tau)` from it on, `beta` 2; then
   divided by the response's mean, so that the response's advantage is dealt out anew and none is made.

As in the paper's text; its code is not out. Our own choices: "without the image" is the prompt without the tokens that
stand for it, those that frame it left in place; the divergence is at the sampling temperature; and a response whose
prompt shows no image, or whose tokens all depend on it alike, gets plain GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float


def dependence(divergence_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """`log(1 + divergence)` of the counted tokens, min-max over each response; 0 where all are alike."""
    log_BR = divergence_BR.log1p()
    low_B1 = log_BR.masked_fill(~mask_BR, torch.inf).amin(-1, keepdim=True)
    span_B1 = log_BR.masked_fill(~mask_BR, -torch.inf).amax(-1, keepdim=True) - low_B1
    return torch.where(mask_BR & (span_B1 > 0), (log_BR - low_B1) / span_B1, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualCredit:
    """w up to 1 below `threshold`, up to `1 + gain` above it, mean 1 over the response."""

    threshold: float = 0.4
    gain: float = 2.0

    def __post_init__(self) -> None:
        if not (0 < self.threshold < 1 and self.gain >= 0):
            raise InputError(
                f"expected threshold in (0, 1) and gain of at least 0, got {self.threshold} and {self.gain}"
            )

    @property
    def reads(self) -> Reads:
        """Dependence on the image."""
        return Reads(needs={"visual"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Dependence on the image, 0 to 1."""
        return dependence(signals.visual.divergence_BR, signals.mask_BR)

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses to an image, which not all of their tokens depend on alike."""
        return signals.visual.shown_B & (self.scores(signals) > 0).any(-1)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Gated weights, rescaled."""
        share_BR = self.scores(signals)
        above_BR = 1 + self.gain * (share_BR - self.threshold) / (1 - self.threshold)
        raw_BR = torch.where(share_BR < self.threshold, share_BR / self.threshold, above_BR) * signals.mask_BR
        mean_B1 = raw_BR.sum(-1, keepdim=True) / signals.mask_BR.sum(-1, keepdim=True).clamp_min(1)
        counted_BR = signals.mask_BR & self.speaks(signals)[:, None]
        return torch.where(counted_BR, raw_BR / mean_B1, 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
