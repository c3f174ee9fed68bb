"""Boost the tokens that the policy was least sure of: the flow paper's entropy baseline (arXiv 2606.10646).

Score: `H_t = -sum_v p_t(v) log p_t(v)`, the entropy of the distribution that token `t` was drawn from, over the whole
vocabulary and at the sampling temperature. The paper says "entropy boost"; that the boost is flow's own, top 40 %
times 1.5, is our reading.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by predictive entropy."""

    @property
    def reads(self) -> Reads:
        """Logits."""
        return Reads(needs={"logits"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Predictive entropy."""
        return signals.logits.entropy_BR
