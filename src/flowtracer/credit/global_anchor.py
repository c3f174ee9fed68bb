"""Boost the tokens that far-sighted heads come back to (arXiv 2510.13554, "global").

1. Of the heads of 5 evenly spaced layers in L/3 .. 2L/3, take the 30 % that look back the longest mean distance.
2. Score: `FAI_s`, the mean of `A_glob[t,s]` over the response's tokens `t` in `s + 10 .. s + 100`, `A_glob` the heads'
   mean: the future attention influence of token `s`.

3. Only where the advantage is not negative (`sign = "positive"`).

Steps, constants and defaults are in the source's text (its first version averaged to `s + 50`). Our own choices where
it is silent: heads are ranked for each response by itself; the last ten tokens, which nothing that far looks at, score
0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by future attention influence."""

    sign: str = "positive"
    layers: Sequence[int] | None = None

    @property
    def reads(self) -> Reads:
        """Heads."""
        return Reads(needs={"heads"}, layers=self.layers)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Future attention influence."""
        return signals.heads.future_attention_BR
