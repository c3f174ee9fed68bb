"""A control: boost by nothing but the distance to the answer.

Score: `-d_t`, where `d_t` is the number of tokens from `t` to the nearest token of the response's final answer.
Attention and flow both favour late tokens, so a strategy that reads them has to beat this one to show more than that.
Without an answer every factor is 1. `keep="bottom"` boosts the tokens that are farthest from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionCredit(BoostCredit):
    """w = `gamma` on the `ratio` of the tokens that stand nearest to the answer."""

    @property
    def reads(self) -> Reads:
        """The answer."""
        return Reads(needs={"answer"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Minus the distance to the answer."""
        answer_BR = signals.answer.answer_BR
        places_R = torch.arange(answer_BR.shape[1], device=answer_BR.device)
        first_B1 = torch.where(answer_BR, places_R, answer_BR.shape[1]).amin(-1, keepdim=True)
        last_B1 = torch.where(answer_BR, places_R, -1).amax(-1, keepdim=True)
        return -torch.maximum(first_B1 - places_R, places_R - last_B1).clamp_min(0).float()

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses with an answer."""
        return signals.answer.answer_BR.any(-1)
