"""Boost the tokens that the answer's probability is most sensitive to: the flow paper's gradient baseline.

Score: `s_t = || d(-log p(answer)) / d e_t * e_t ||`, the Euclidean norm of gradient times embedding, element by
element, with the response's own answer given token by token and the embeddings as leaves (reported in arXiv
2606.10646). Our own choices where the source is silent: log p is summed over the answer's tokens and the model runs
without dropout; the answer's own tokens and what follows score 0, since the answer does not depend on what comes
after it. Without an answer every factor is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import BoostCredit
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientCredit(BoostCredit):
    """w = `gamma` on the top `ratio` of a response's tokens by gradient times embedding."""

    @property
    def reads(self) -> Reads:
        """The answer, and gradients."""
        return Reads(needs={"answer", "gradient"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Norm of gradient times embedding, before the answer."""
        saliency_BR = signals.gradient.saliency_BR
        reasoning_BR = signals.answer.reasoning_BR
        return torch.where(reasoning_BR, saliency_BR, 0.0)

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses with an answer."""
        return signals.answer.answer_BR.any(-1)
