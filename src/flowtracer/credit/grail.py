r"""GRAIL: gradients say which tokens of a wrong answer to blame (arXiv 2606.04889).

1. `s_t = || d(-log p(box)) / d e_{t-1} * e_{t-1} ||`: the score of token `t` is that of the input position before it,
   where it was predicted. The box is the response's own first complete `\boxed{}`, marker and closing brace included.
2. `z_t`: z-score of `log(s_t + 1e-8)` over all counted tokens, the box and what follows it included, with the deviation
   `sqrt(var + 1e-8)` of the population.
3. `w_t = clip(1 + 0.5 z_t, 0.5, 5)` where `A <= 0`; 1 where `A > 0` or where there is no box.
4. Then, whatever the sign of `A`: 5 inside the box; 1 on its marker, on its last token and on what follows.

As in the official code (declare-lab/grail), which computes this anew at each optimiser step where we do it once for
what was sampled. `target="answer"`, for tasks that are not answered in boxes, is ours: the response's final answer, as
FlowTracer locates it, is what log p is of and gets the factor 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float

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
        """z-scores of log saliency."""
        mask_BR = signals.mask_BR
        log_BR = torch.where(mask_BR, (signals.gradient.saliency_before_BR + 1e-8).log(), 0.0)
        n_B1 = mask_BR.sum(-1, keepdim=True).clamp_min(1)
        centred_BR = torch.where(mask_BR, log_BR - log_BR.sum(-1, keepdim=True) / n_B1, 0.0)
        return centred_BR / (centred_BR.square().sum(-1, keepdim=True) / n_B1 + 1e-8).sqrt()

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses with an answer."""
        return signals.answer.answer_BR.any(-1)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        answer = signals.answer
        blamed_BR = answer.reasoning_BR & (signals.advantages_B <= 0)[:, None]
        by_score_BR = (1 + SLOPE * self.scores(signals)).clamp(LOWEST, HIGHEST)
        factors_BR = torch.where(blamed_BR, by_score_BR, 1.0)
        inside_BR = answer.answer_BR & ~_closing(answer.whole_BR) if self.target == "box" else answer.answer_BR
        return signals.weighted(torch.where(signals.mask_BR, torch.where(inside_BR, HIGHEST, factors_BR), 1.0))


def _closing(whole_BR: Bool[Tensor, "B R"]) -> Bool[Tensor, "B R"]:
    """The last marked token of each row."""
    return whole_BR & (whole_BR.flip(-1).cumsum(-1).flip(-1) == 1)
