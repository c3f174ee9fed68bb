"""Credit by how much likelier a token becomes once the gold answer is known (arXiv 2605.27934).

1. `r_t = log p(y_t | x with the gold answer revealed, y_<t) - log p(y_t | x, y_<t)`.
2. `d_t`: `r_t` minus its mean over the response, divided by the root mean square of that over the batch.
3. `omega_t = clip(d_t - tau, -1, 1)`, with the `tau` for which `sum_t omega_t = 0` over the response.
4. `A_t = A + lambda |A| omega_t`: tokens that serve the right answer gain, in right and wrong responses alike, and
   the response's advantage as a whole stays what it was.

Steps 1 to 4 are the source's. Not public: `lambda` (0.5 is our own choice; below 1 no token's advantage changes sign),
how the answer is revealed (`signals/gold.py`), and whether 2 is centred and 3 balanced by response (our reading).
Responses without a gold answer have `r = 0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodGainCredit:
    """A + `weight` |A| omega: lambda is a word of Python, so the option is called `weight`."""

    weight: float = 0.5

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise InputError(f"expected weight of at least 0, the source's lambda, got {self.weight}")

    @property
    def reads(self) -> Reads:
        """The gain."""
        return Reads(needs={"gain"})

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The advantage, moved within the response towards what serves the gold answer."""
        gain_BR = signals.gain.gain_BR
        mask_BR = signals.mask_BR
        mean_B1 = (gain_BR * mask_BR).sum(-1, keepdim=True) / mask_BR.sum(-1, keepdim=True).clamp_min(1)
        centred_BR = (gain_BR - mean_B1) * mask_BR
        scale = (centred_BR.square().sum() / mask_BR.sum().clamp_min(1)).sqrt()
        omega_BR = balanced_clip(centred_BR / scale.clamp_min(1e-8), mask_BR)
        moved_BR = self.weight * signals.advantages_B.abs()[:, None] * omega_BR.to(signals.advantages_B.dtype)
        return signals.advantages_B[:, None] + moved_BR


def balanced_clip(values_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """`clip(d - tau, -1, 1)` with each row's `tau` such that its counted values sum to 0; 0 off the mask.

    The sum falls as `tau` grows, from the count at `min d - 1` to minus the count at `max d + 1`: bisection.
    """
    values_BR = values_BR.double()
    low_B1 = values_BR.masked_fill(~mask_BR, torch.inf).amin(-1, keepdim=True) - 1
    high_B1 = values_BR.masked_fill(~mask_BR, -torch.inf).amax(-1, keepdim=True) + 1
    for _ in range(60):
        middle_B1 = (low_B1 + high_B1) / 2
        total_B1 = ((values_BR - middle_B1).clamp(-1, 1) * mask_BR).sum(-1, keepdim=True)
        low_B1 = torch.where(total_B1 > 0, middle_B1, low_B1)
        high_B1 = torch.where(total_B1 > 0, high_B1, middle_B1)
    clipped_BR = (values_BR - (low_B1 + high_B1) / 2).clamp(-1, 1)
    return torch.where(mask_BR, clipped_BR, 0.0).float()
