"""Global anchors hand part of their bonus to the opening of their chunk (arXiv 2510.13554, "coupled", eq. 17-18).

1. Anchors `T`: the top `ratio` of a response's tokens by FAI (`global`). `Delta_t`: the step of WAAD (`local`).
2. Locally dominated anchors `D`: those with `WAAD_t <= tau` and `max_{u in t-k .. t-1} Delta_u >= tau_Delta`.
3. `I(D)`: the openings, of each such anchor the token with that maximum.
4. `w_t = 1 + b [t in T and not in D] + (1 - alpha) b [t in D] + alpha b [t in I(D)]`, `b = gamma - 1`. Indicators: an
   opening that several anchors follow gets its bonus once, one that is an anchor too gets both.
5. Only where the advantage is not negative (`sign = "positive"`).

The formula is in the source's text; not public are both thresholds, `alpha` and how far back an opening may stand. Our
own choices: the response's medians, 0.5, `k` of 3 tokens; of equal steps the nearest to the anchor is its opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import SIGNS, check_boost, masked_quantile, of_sign, top_share
from flowtracer.credit.local import step_to_next
from flowtracer.credit.signals import Reads, Signals, check_choice
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int

REACH = 3
"""How far before an anchor its chunk's opening may stand, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledCredit:
    """w = 1 + the bonus of an anchor, shared with the opening of its chunk."""

    ratio: float = 0.4
    gamma: float = 1.5
    alpha: float = 0.5
    sign: str = "positive"
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)
        check_choice("sign", self.sign, SIGNS)
        if not 0 <= self.alpha <= 1:
            raise InputError(f"expected alpha in [0, 1], the share of a bonus that is handed on, got {self.alpha}")

    @property
    def reads(self) -> Reads:
        """Heads."""
        return Reads(needs={"heads"}, layers=self.layers)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Bonuses of the anchors, partly handed on."""
        mask_BR, distance_BR = signals.mask_BR, signals.heads.local_distance_BR
        anchor_BR = top_share(signals.heads.future_attention_BR, mask_BR, self.ratio)
        step_BR = step_to_next(distance_BR, mask_BR)
        largest_BR, back_BR = _largest_before(step_BR, mask_BR)
        low_BR = distance_BR <= masked_quantile(distance_BR, mask_BR, 0.5)
        dominated_BR = anchor_BR & low_BR & (largest_BR >= masked_quantile(step_BR, mask_BR, 0.5))
        opening_BR = torch.zeros_like(mask_BR)
        for k in range(1, REACH + 1):
            opening_BR[:, :-k] |= (dominated_BR & (back_BR == k))[:, k:]
        share_BR = (anchor_BR & ~dominated_BR) + (1 - self.alpha) * dominated_BR + self.alpha * opening_BR
        return 1 + (self.gamma - 1) * share_BR

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(of_sign(self.factors(signals), signals, self.sign))


def _largest_before(
    values_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]
) -> tuple[Float[Tensor, "B R"], Int[Tensor, "B R"]]:
    """The largest counted value among the `REACH` tokens before each, -inf for none, and how far back it stands."""
    counted_BR = values_BR.masked_fill(~mask_BR, -torch.inf)
    largest_BR = torch.full_like(counted_BR, -torch.inf)
    back_BR = torch.zeros_like(mask_BR, dtype=torch.long)
    for k in range(1, REACH + 1):
        before_BR = torch.nn.functional.pad(counted_BR, (k, 0), value=-torch.inf)[:, :-k]
        back_BR = torch.where(before_BR > largest_BR, k, back_BR)
        largest_BR = torch.maximum(largest_BR, before_BR)
    return largest_BR, back_BR
