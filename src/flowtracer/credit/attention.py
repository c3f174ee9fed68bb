"""Boost the tokens that later tokens look at: inspired by a baseline of arXiv 2606.10646.

Score: `sum_{t>s} W[t,s]` over the later tokens `t` of the response, `W` the attention averaged over all heads of
the middle layers, as flow reads it. The paper reports a "max attention score", a maximum somewhere, without its
formula; ours is a sum, over the response's own later tokens, and inspired by that baseline only. It is what flow is
without its direction: a token counts that much is looked at, whether or not that reaches the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by attention received; `layers` as of flow."""

    layers: Sequence[int] | None = None

    @property
    def reads(self) -> Reads:
        """Attention."""
        return Reads(needs={"attention"}, layers=self.layers)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Attention received from later response tokens."""
        return signals.attention.received_BR
