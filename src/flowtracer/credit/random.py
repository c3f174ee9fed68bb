"""A control: as many tokens boosted as by any other strategy, drawn blindly.

Score: a uniform draw for each token, from the response's own seed, so that it is the same in whatever batch the
response stands. A strategy that does not beat it has found nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCredit(BoostCredit):
    """w = `gamma` on a random `ratio` of the tokens, else 1."""

    seed: int = 0

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """A uniform draw."""
        return uniform_draws(signals, self.seed)


def uniform_draws(signals: Signals, seed: int) -> Float[Tensor, "B R"]:
    """A uniform number for each token, by the response's own seed."""
    draws_BR = torch.zeros(signals.mask_BR.shape)
    for row, own in enumerate(signals.seeds_B):
        # On the CPU, so that every device draws the same.
        generator = torch.Generator().manual_seed((own * 1_000_003 + seed) % 2**63)
        draws_BR[row] = torch.rand(draws_BR.shape[1], generator=generator)
    return draws_BR.to(signals.mask_BR.device)
