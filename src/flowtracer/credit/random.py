"""The control: as many tokens boosted as by any other strategy, drawn blindly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import Signals, boost_top, check_boost
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCredit:
    """w = `gamma` on a random `ratio` of the tokens, else 1; drawn anew for each response from its own seed."""

    ratio: float = 0.4
    gamma: float = 1.5
    seed: int = 0
    needs: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """A uniform draw, boosted at the top."""
        scores_BR = torch.zeros(signals.mask_BR.shape)
        for row, seed in enumerate(signals.seeds_B):
            # On the CPU, so that every device draws the same.
            generator = torch.Generator().manual_seed((seed * 1_000_003 + self.seed) % 2**63)
            scores_BR[row] = torch.rand(scores_BR.shape[1], generator=generator)
        return boost_top(scores_BR.to(signals.mask_BR.device), signals.mask_BR, ratio=self.ratio, gamma=self.gamma)
