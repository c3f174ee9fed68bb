"""Boost the tokens that carried the answer and could have been otherwise: ours.

A token that was all but certain cannot learn, whatever flows through it: its gradient is `(1 - p_t)` times that of its
logits. Score: `tau_t (1 - p_t)`, throughput times the probability that another token had been drawn, at the sampling
temperature. Where log-probabilities are computed by the trainer anyway, it costs what `flow` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeFlowCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by flow that might have gone another way.

    `layers` and `at` are those of `flow`.
    """

    layers: Sequence[int] | None = None
    at: str = "token"

    @property
    def reads(self) -> Reads:
        """Flow, and log-probabilities."""
        return Reads(needs={"flow", "logits"}, layers=self.layers, at=self.at)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput times the probability of another token."""
        return -signals.flow.throughput_BR.float() * signals.logits.log_prob_BR.float().expm1()

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses that were traced."""
        return signals.flow.traced_B
