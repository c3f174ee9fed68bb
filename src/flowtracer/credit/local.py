"""Boost the tokens where a chunk begins, as short-sighted heads show them (arXiv 2510.13554, "local").

1. Of the heads of 5 evenly spaced layers in L/3 .. 2L/3, take the 30 % that look back the shortest mean distance.
2. `WAAD_t = sum_s A_loc[t,s] min(t - s, 10)`, `A_loc` their mean.
3. Score: `|WAAD_t - WAAD_{t+1}|`, large where a new chunk opens.

4. Only where the advantage is not negative (`sign = "positive"`).

Steps, constants and defaults are in the source's text. Our own choices where it is silent: heads are ranked for each
response by itself, over all its rows, so that the batch does not matter; the last token, which has no next one, scores
0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by the step of WAAD."""

    sign: str = "positive"
    layers: Sequence[int] | None = None

    @property
    def reads(self) -> Reads:
        """Heads."""
        return Reads(needs={"heads"}, layers=self.layers)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Step of WAAD to the next token."""
        distance_BR = signals.heads.local_distance_BR
        return step_to_next(distance_BR, signals.mask_BR)


def step_to_next(values_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """`|x_t - x_{t+1}|`; 0 at a token whose next one is not counted."""
    step_BR = values_BR.new_zeros(values_BR.shape)
    step_BR[:, :-1] = (values_BR[:, :-1] - values_BR[:, 1:]).abs() * mask_BR[:, 1:]
    return step_BR
