"""DelTA: credit by the side that a token's gradient is on (arXiv 2605.21467).

1. `v_t = (1 - p_t) h_t`: the gradient of `log p(y_t)` with respect to the token's own row of the LM head, `h_t` the
   last hidden state, `p_t` at the sampling temperature. Nothing is run backward.
2. Centroids `m+` and `m-`: means of `v` over the tokens of all responses with `A > 0` and `A < 0`, weighted by `|A|`.
3. Margin of a token: how much nearer it is to its own side, `|v - m_other|^2 - |v - m_own|^2`; `s+` and `s-`, the
   deviation of the margins of each side.
4. One refinement: the centroids anew, each token weighted by `|A| sigmoid(margin / s)` too, and the margins by them.
5. `w_t = 0.8 + 0.4 sigmoid(margin / s)`, 0.8 where `A = 0`, then divided by the batch's mean.

As in the official code (RUCBM/DelTA), whose batch is a process's share too; its deviations stay those before the
refinement. Our own choice: a batch with only one sign, which has nothing to compare, gets plain GRPO.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaCredit:
    """w from `lowest` to `highest` by the margin towards the own side, mean 1 over the batch."""

    lowest: float = 0.8
    highest: float = 1.2

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.highest:
            raise InputError(f"expected 0 < lowest <= highest, got {self.lowest} and {self.highest}")

    @property
    def reads(self) -> Reads:
        """Gradients at the output."""
        return Reads(needs={"output"})

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Weights by margin."""
        gradient_BRD = signals.output.gradient_BRD.float()
        own_B, mask_BR = signals.advantages_B.float(), signals.mask_BR
        size_BR = own_B.abs()[:, None] * mask_BR
        sides = [mask_BR & (own_B > 0)[:, None], mask_BR & (own_B < 0)[:, None]]
        if not all(bool(side_BR.any()) for side_BR in sides):
            return torch.ones(mask_BR.shape, device=mask_BR.device)
        rough_BR = _margins(gradient_BRD, [size_BR * side_BR for side_BR in sides])
        spreads = [rough_BR[side_BR].var(correction=0).clamp_min(1e-8).sqrt() for side_BR in sides]
        trust_BR = _trust(rough_BR, sides, spreads)
        margin_BR = _margins(gradient_BRD, [size_BR * trust_BR * side_BR for side_BR in sides])
        weights_BR = self.lowest + (self.highest - self.lowest) * _trust(margin_BR, sides, spreads)
        return torch.where(mask_BR, weights_BR / weights_BR[mask_BR].mean(), 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))


def _margins(gradient_BRD: Float[Tensor, "B R D"], weights: list[Float[Tensor, "B R"]]) -> Float[Tensor, "B R"]:
    """How much nearer each token is to the first centroid than to the second, in squared distance."""
    first_D, second_D = (
        torch.einsum("br,brd->d", weight_BR, gradient_BRD) / weight_BR.sum().clamp_min(1e-8) for weight_BR in weights
    )
    # |v - b|^2 - |v - a|^2, in which the squares of v cancel.
    return 2 * gradient_BRD @ (first_D - second_D) + second_D.square().sum() - first_D.square().sum()


def _trust(margin_BR: Float[Tensor, "B R"], sides: list[Tensor], spreads: list[Tensor]) -> Float[Tensor, "B R"]:
    """Soft assignment of each token to its own side; 0 on neither."""
    trust_BR = torch.zeros_like(margin_BR)
    for side_BR, spread, sign in zip(sides, spreads, (1, -1), strict=True):
        trust_BR = torch.where(side_BR, (sign * margin_BR / spread).sigmoid(), trust_BR)
    return trust_BR
