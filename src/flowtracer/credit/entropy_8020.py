"""Beyond the 80/20 rule: learn from the forking tokens alone (arXiv 2506.01939).

1. Of all counted tokens of the batch, keep the `ceil(rho n)` of highest predictive entropy; rho 0.2, at least one.
2. `A_t = A n / kept` on those, 0 on the rest.

The source divides the loss by the number of tokens kept. A loss that divides by the number of all tokens (TRL's
`dapo` and `bnpo`) does just that with the factor `n / kept`; losses that average by response (`grpo`) do it up to how
the kept tokens spread over the responses. The batch is what was sampled in one go on this process: TRL shuffles and
splits it later, so its micro-batches are not known yet. The KL term, if any, stays on every token. Exact but for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import check_share, top_share
from flowtracer.credit.signals import Reads, Signals
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy8020Credit:
    """w = n / kept on the top `rho` of the whole batch's tokens by entropy, else 0."""

    rho: float = 0.2

    def __post_init__(self) -> None:
        check_share("rho", self.rho)

    @property
    def reads(self) -> Reads:
        """Logits."""
        return Reads(needs={"logits"})

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Keep the forking tokens, at the weight of all."""
        entropy_BR = signals.logits.entropy_BR
        mask_BR = signals.mask_BR
        kept_BR = top_share(entropy_BR.reshape(1, -1), mask_BR.reshape(1, -1), self.rho).view_as(mask_BR)
        scale = mask_BR.sum() / kept_BR.sum().clamp_min(1)
        return signals.weighted(torch.where(kept_BR, scale, 0.0))
