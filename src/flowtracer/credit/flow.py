"""The paper's credit: boost the tokens that carried the question to the answer (arXiv 2606.10646).

Score: throughput `tau_t`, equation (5) of docs/method.md. The defaults are the paper's, as reported: all heads,
layers L/3 .. 2L/3, the top 40 % times 1.5, whatever the sign of the advantage. Reported there too: 20 %, 60 % and
continuous maps were worse, gamma 1.2 too weak, 3.0 collapses, the bottom end hurts, all layers are worse than the
middle ones. Our own choices: a response that was not traced gets plain GRPO; `at="prediction"` ends the flow one
position before the answer's tokens, at the hidden states that predict them; `capacity` and `graph`, docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBoost(BoostCredit):
    """What strategies that read flow have in common.

    `layers` are the decoder layers whose attention is read, the middle third by default, and all over layers; `at` is
    where the flow ends, at the answer's "token"s or at their "prediction", which is the default over layers. `capacity`
    is what an edge is, "attention", "value" or "alti"; `graph` is "tokens" or "layered"; and `ends` says where backward
    walks over layers end, "anywhere" or in the "question".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"flow"})

    layers: Sequence[int] | None = None
    at: str | None = None
    capacity: str = "attention"
    graph: str = "tokens"
    ends: str = "anywhere"

    @property
    def reads(self) -> Reads:
        """Flow, and what else a strategy needs."""
        return Reads(
            needs=self.needs, layers=self.layers, at=self.at, capacity=self.capacity, graph=self.graph, ends=self.ends
        )

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses that were traced."""
        return signals.flow.traced_B


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCredit(FlowBoost):
    """w = `gamma` on the top `ratio` of a response's tokens by throughput, else 1."""

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput."""
        return signals.flow.throughput_BR
