"""A control: the scores of flow, dealt out anew among the tokens of the same response.

Score: `tau_{pi(t)}` for a random permutation `pi` of the response's counted tokens, drawn from its own seed. The
factors have flow's own distribution and name the wrong tokens; responses that flow leaves alone stay alone. What
flow gains over this is what it knows about which token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import ranks
from flowtracer.credit.flow import FlowBoost
from flowtracer.credit.random import uniform_draws
from flowtracer.credit.signals import Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledCredit(FlowBoost):
    """w = flow's factors, permuted within each response. Options as of flow, and the `seed` of the permutation."""

    seed: int = 0

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput, permuted."""
        throughput_BR = signals.flow.throughput_BR
        # The token that drew the k-th largest number gets the score of the k-th counted token.
        rank_BR = ranks(uniform_draws(signals, self.seed), signals.mask_BR)
        counted_first_BR = torch.argsort(~signals.mask_BR, dim=-1, stable=True)
        return throughput_BR.gather(1, counted_first_BR.gather(1, rank_BR))
