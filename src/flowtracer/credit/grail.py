r"""GRAIL: gradients say which tokens of a wrong answer to blame (arXiv 2606.04889).

1. `s_t = || d(-log p(box)) / d e_{t-1} * e_{t-1} ||`: the score of token `t` is that of the input position before it,
   where it was predicted. The box is the response's own first complete `\boxed{}`.
2. `z_t`: z-score of `log(s_t + 1e-8)`; `w_t = clip(1 + 0.5 z_t, 0.5, 5)`.
3. Inside the box 5; the box's delimiters and what follows 1; no box: 1 everywhere.
4. Applied only where `A <= 0`; the box's factor always.

Formula, constants and the shift by one are the source's. Our own choice where it is silent: the z-score runs over the
counted tokens before the box, with the population's deviation. `target="answer"` puts the response's final answer, as
FlowTracer locates it, in the place of the box, for tasks that are not answered in boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float

SLOPE, LOWEST, HIGHEST = 0.5, 0.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GrailCredit:
    """w by the z-score of saliency where the advantage is not positive, 5 inside the box."""

    target: str = "box"

    def __post_init__(self) -> None:
        _ = self.reads  # which checks the target

    @property
    def reads(self) -> Reads:
        """The answer, and gradients."""
        return Reads(needs={"answer", "gradient"}, target=self.target)

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """z-scores over the reasoning; 0 elsewhere."""
        saliency_BR = signals.gradient.saliency_before_BR
        reasoning_BR = signals.answer.reasoning_BR
        counted_BR = reasoning_BR & signals.mask_BR
        log_BR = torch.where(counted_BR, (saliency_BR + 1e-8).log(), 0.0)
        n_B1 = counted_BR.sum(-1, keepdim=True).clamp_min(1)
        centred_BR = torch.where(counted_BR, log_BR - log_BR.sum(-1, keepdim=True) / n_B1, 0.0)
        deviation_B1 = (centred_BR.square().sum(-1, keepdim=True) / n_B1).sqrt()
        return centred_BR / deviation_B1.clamp_min(1e-8)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        answer_BR, reasoning_BR = signals.answer.answer_BR, signals.answer.reasoning_BR
        blamed_BR = reasoning_BR & signals.mask_BR & (signals.advantages_B <= 0)[:, None]
        by_score_BR = (1 + SLOPE * self.scores(signals)).clamp(LOWEST, HIGHEST)
        factors_BR = torch.where(blamed_BR, by_score_BR, 1.0)
        return signals.weighted(torch.where(answer_BR & signals.mask_BR, HIGHEST, factors_BR))
