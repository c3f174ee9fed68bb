"""OAR: credit by how far a token's perturbation moves the final answer (arXiv 2601.07408, its gradient form).

1. `J = KL(P0 || P_noisy)`: how far Gaussian noise of 1e-3 on the reasoning's embeddings moves the softmax of the *mean*
   of the logits that the response's own answer was predicted with; `I_t = |dJ/de_t . e_t|`, `e_t` without noise.
2. `x = log1p(I)`, scaled to 0..1 by the least and the greatest of the response's reasoning.
3. With `q` a quantile of `x`: below it `w = max(x / q, 0.1)`, from it on `w = 1 + beta (x - q) / (1 - q)`.
4. The reasoning's factors are rescaled to a mean of 1; every other token has exactly 1.

As in the official code (Valsure/Outcome-Grounded-Advantage-Reshaping). `variant` names its defaults, "oar", quantile
0.25 and beta 1, or those of GRAIL's implementation of it, "grail", 0.4 and 2; `quantile` and `beta` replace either. Our
own choices: the answer and the reasoning are what FlowTracer locates, where the source cuts its prompts by hand; noise
is drawn from the response's own seed. Without an answer every factor is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_share, masked_quantile
from flowtracer.credit.signals import Reads, Signals, check_choice
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float

FLOOR = 0.1
VARIANTS = {"oar": (0.25, 1.0), "grail": (0.4, 2.0)}
"""Quantile and beta, by whose they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OarCredit:
    """w by the influence on the answer's distribution, mean 1 over the reasoning."""

    variant: str = "oar"
    quantile: float | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, tuple(VARIANTS))
        quantile, beta = self.constants
        check_share("quantile", quantile)
        if beta < 0:
            raise InputError(f"expected beta of at least 0, the most that a factor grows, got {beta}")

    @property
    def reads(self) -> Reads:
        """The answer, and what noise moves."""
        return Reads(needs={"answer", "perturbation"})

    @property
    def constants(self) -> tuple[float, float]:
        """Quantile and beta."""
        quantile, beta = VARIANTS[self.variant]
        return quantile if self.quantile is None else self.quantile, beta if self.beta is None else self.beta

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Influence, 0 to 1 over the reasoning of each response; 0 elsewhere."""
        counted_BR = signals.answer.reasoning_BR & signals.mask_BR
        log_BR = signals.perturbation.influence_BR.log1p()
        least_B1 = log_BR.masked_fill(~counted_BR, torch.inf).amin(-1, keepdim=True)
        span_B1 = log_BR.masked_fill(~counted_BR, -torch.inf).amax(-1, keepdim=True) - least_B1
        return torch.where(counted_BR & (span_B1 > 0), (log_BR - least_B1) / span_B1, 0.0)

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses that answer after some reasoning."""
        return (signals.answer.reasoning_BR & signals.mask_BR).any(-1)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Damped below the quantile, raised above it, mean 1 over the reasoning."""
        quantile, beta = self.constants
        counted_BR = signals.answer.reasoning_BR & signals.mask_BR
        scores_BR = self.scores(signals)
        q_B1 = masked_quantile(scores_BR, counted_BR, quantile)
        low_BR = (scores_BR / (q_B1 + 1e-8)).clamp_min(FLOOR)
        high_BR = 1 + beta * (scores_BR - q_B1) / (1 - q_B1 + 1e-8)
        raw_BR = torch.where(scores_BR < q_B1, low_BR, high_BR)
        mean_B1 = torch.where(counted_BR, raw_BR, 0.0).sum(-1, keepdim=True) / counted_BR.sum(-1, keepdim=True)
        return torch.where(counted_BR, raw_BR / mean_B1, 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
