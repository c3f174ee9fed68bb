"""Boost the tokens that carried the answer and could have been otherwise: ours.

A token that was all but certain cannot learn, whatever flows through it: its gradient is `(1 - p_t)` times that of its
logits. Score: `tau_t (1 - p_t)`, throughput times the probability that another token had been drawn, at the sampling
temperature. Where log-probabilities are computed by the trainer anyway, it costs what `flow` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from flowtracer.credit.flow import FlowBoost
from flowtracer.credit.signals import Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeFlowCredit(FlowBoost):
    """w = `gamma` on the top `ratio` of a response's tokens by flow that might have gone another way.

    Options as of `flow`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"flow", "logits"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput times the probability of another token."""
        return -signals.flow.throughput_BR.float() * signals.logits.log_prob_BR.float().expm1()
