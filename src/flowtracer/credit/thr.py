"""Learn from the tokens that move right responses most, and lean to one side: after THR (arXiv 2510.03669).

`THR_t = s_t` on right responses and `-s_t` on wrong ones, `s_t` as in `nthr`: what plain GRPO's step on the token does
to the likelihood of the group's right responses. Tokens whose `|THR|` is not above the anchor of `nthr` learn nothing;
of the others those with `THR > 0` get `1 + p` and those with `THR < 0` get `1 - p`. `p > 0` leans to what is likely
already, `p < 0` to what is not.

Source: the abstract and its public reviews, which say that small values are masked and that the others are weighed by
sign; formula and anchor are those of `nthr`, by the same authors, and `p` is our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.nthr import aligned, check_beta
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrCredit:
    """w = `1 + p sign(THR)` on the tokens with large |THR|, else 0."""

    p: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_beta(self.beta)
        if not -1 < self.p < 1:
            raise InputError(f"expected p between -1 and 1, got {self.p}")

    @property
    def reads(self) -> Reads:
        """Alignment with the right responses of the group."""
        return Reads(needs={"alignment", "group"})

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Large influence alone, weighed by its sign; 1 where the group has nothing to compare."""
        scores_BR, anchors_B, right_B = aligned(signals)
        thr_BR = torch.where(right_B[:, None], scores_BR, -scores_BR)
        kept_BR = torch.where(thr_BR.abs() > self.beta * anchors_B[:, None], 1 + self.p * thr_BR.sign(), 0.0)
        return torch.where(anchors_B[:, None].isinf() | ~signals.mask_BR, 1.0, kept_BR)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
