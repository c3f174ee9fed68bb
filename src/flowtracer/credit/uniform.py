"""Plain GRPO: every token of a response gets its advantage as it is.

`A_t = A`, to the bit what TRL computes by itself. The baseline of every comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformCredit:
    """w = 1."""

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The advantage itself."""
        return signals.weighted(torch.ones(signals.mask_BR.shape, device=signals.mask_BR.device))
