"""OAR: credit by how far a token's perturbation moves the final answer (arXiv 2601.07408, its gradient form).

1. `J = KL(P0 || P_noisy)`: how far Gaussian noise of 1e-3 on the reasoning's embeddings moves the distributions that
   the response's own answer was drawn from; `I_t = |dJ/de_t . e_t|`.
2. `x = log1p(I)`, scaled to 0..1 by the least and the greatest of the response.
3. With `q` the 0.4 quantile of `x`: below it `w = max(x / q, 0.1)`, above it `w = 1 + peak (x - q) / (1 - q)`, peak 2.
4. All factors of the response are rescaled to a mean of 1.

Formula and defaults are the source's; its authors' notes also mention 0.25 and 1.0 (`quantile`, `peak`). Our own
choices where it is silent: `J` is summed over the answer's tokens, which are given; steps 2 and 3 run over the tokens
before the answer, while the answer and what follows enter step 4 with 1; noise is drawn from the response's own seed.
Without an answer every factor is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_share, masked_quantile
from flowtracer.credit.signals import Reads, Signals
from flowtracer.errors import InputError
from flowtracer.shapes import Float

FLOOR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class OarCredit:
    """w by the influence on the answer's distribution, mean 1."""

    quantile: float = 0.4
    peak: float = 2.0

    def __post_init__(self) -> None:
        check_share("quantile", self.quantile)
        if self.peak < 0:
            raise InputError(f"expected peak of at least 0, the most that a factor grows, got {self.peak}")

    @property
    def reads(self) -> Reads:
        """The answer, and what noise moves."""
        return Reads(needs={"answer", "perturbation"})

    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Influence, 0 to 1 over the reasoning of each response; 0 elsewhere."""
        influence_BR = signals.perturbation.influence_BR
        reasoning_BR = signals.answer.reasoning_BR
        counted_BR = reasoning_BR & signals.mask_BR
        log_BR = influence_BR.log1p()
        least_B1 = log_BR.masked_fill(~counted_BR, torch.inf).amin(-1, keepdim=True)
        span_B1 = log_BR.masked_fill(~counted_BR, -torch.inf).amax(-1, keepdim=True) - least_B1
        return torch.where(counted_BR & (span_B1 > 0), (log_BR - least_B1) / span_B1, 0.0)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Damped below the quantile, raised above it, mean 1."""
        reasoning_BR = signals.answer.reasoning_BR
        counted_BR = reasoning_BR & signals.mask_BR
        scores_BR = self.scores(signals)
        varies_B1 = (scores_BR > 0).any(-1, keepdim=True)
        q_B1 = masked_quantile(scores_BR, counted_BR, self.quantile)
        low_BR = (scores_BR / q_B1).clamp_min(FLOOR)
        high_BR = 1 + self.peak * (scores_BR - q_B1) / (1 - q_B1).clamp_min(1e-8)
        raw_BR = torch.where(scores_BR < q_B1, low_BR, high_BR)
        raw_BR = torch.where(counted_BR & varies_B1, raw_BR, 1.0)
        mean_B1 = (raw_BR * signals.mask_BR).sum(-1, keepdim=True) / signals.mask_BR.sum(-1, keepdim=True).clamp_min(1)
        return torch.where(signals.mask_BR & varies_B1, raw_BR / mean_B1, 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(self.factors(signals))
