"""Global anchors hand part of their bonus to the opening of their chunk (arXiv 2510.13554, "coupled").

1. Anchors: the top `ratio` of a response's tokens by FAI (`global`); each has the bonus `gamma - 1`.
2. Openings: tokens whose step of WAAD (`local`) is above the response's median.
3. An anchor whose WAAD is below the response's median lies within a chunk. If an opening stands 1, 2 or 3 tokens
   before it, the nearest gets the share `alpha` of the anchor's bonus and the anchor keeps the rest.
4. `w_t = 1 + bonus_t`. What is handed over is not lost, so the mean factor is that of `global`.

Partly seen: the hand-over along `k` in 1..3 is the source's; its thresholds and its share are not public. The two
medians and `alpha = 0.5` are our own choices, and so is that bonuses add up on an opening that several anchors follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_boost, masked_quantile, top_share
from flowtracer.credit.local import step_to_next
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float

REACH = 3
"""How far before an anchor its chunk's opening may stand, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledCredit:
    """w = 1 + the bonus of an anchor, shared with the opening of its chunk."""

    ratio: float = 0.4
    gamma: float = 1.5
    alpha: float = 0.5
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)
        if not 0 <= self.alpha <= 1:
            raise InputError(f"expected alpha in [0, 1], the share of a bonus that is handed on, got {self.alpha}")

    @property
    def reads(self) -> Reads:
        """Heads."""
        return Reads(needs={"heads"}, layers=self.layers)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Bonuses of the anchors, partly handed on."""
        distance_BR, influence_BR = signals.heads.local_distance_BR, signals.heads.future_attention_BR
        mask_BR = signals.mask_BR
        step_BR = step_to_next(distance_BR, mask_BR)
        opening_BR = mask_BR & (step_BR > masked_quantile(step_BR, mask_BR, 0.5))
        anchor_BR = top_share(influence_BR, mask_BR, self.ratio)
        handing_BR = anchor_BR & (distance_BR < masked_quantile(distance_BR, mask_BR, 0.5))
        bonus_BR = anchor_BR.to(distance_BR.dtype)
        for k in range(1, REACH + 1):
            # Column t of `before` says whether an opening stands k tokens before t.
            before_BR = torch.zeros_like(opening_BR)
            before_BR[:, k:] = opening_BR[:, :-k]
            moved_BR = (handing_BR & before_BR).to(bonus_BR.dtype) * self.alpha
            handing_BR = handing_BR & ~before_BR
            bonus_BR -= moved_BR
            bonus_BR[:, :-k] += moved_BR[:, k:]
        return 1 + (self.gamma - 1) * bonus_BR

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
