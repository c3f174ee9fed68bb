"""A control: the scores of flow, dealt out anew among the tokens of the same response.

Score: `tau_{pi(t)}` for a random permutation `pi` of the response's counted tokens, drawn from its own seed. The
factors have flow's own distribution and name the wrong tokens; responses that flow leaves alone stay alone. What
flow gains over this is what it knows about which token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit, ranks
from flowtracer.credit.random import uniform_draws
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledCredit(BoostCredit):
    """w = flow's factors, permuted within each response. Options as of flow, and the `seed` of the permutation."""

    layers: Sequence[int] | None = None
    at: str = "token"
    seed: int = 0

    @property
    def reads(self) -> Reads:
        """Flow."""
        return Reads(needs={"flow"}, layers=self.layers, at=self.at)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput, permuted."""
        throughput_BR = signals.flow.throughput_BR
        # The token that drew the k-th largest number gets the score of the k-th counted token.
        rank_BR = ranks(uniform_draws(signals, self.seed), signals.mask_BR)
        counted_first_BR = torch.argsort(~signals.mask_BR, dim=-1, stable=True)
        return throughput_BR.gather(1, counted_first_BR.gather(1, rank_BR))

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses that were traced."""
        return signals.flow.traced_B
