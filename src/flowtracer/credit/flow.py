"""The paper's credit: boost the tokens that carried the question to the answer (arXiv 2606.10646)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.base import Signals, boost_top, check_boost
from flowtracer.errors import InputError
from flowtracer.shapes import Float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCredit:
    """w = `gamma` on the top `ratio` of a response's tokens by throughput, else 1; all 1 where nothing was traced.

    The defaults are the paper's. `keep="bottom"` boosts the other end, a control that flow must beat.
    """

    ratio: float = 0.4
    gamma: float = 1.5
    keep: str = "top"
    needs: frozenset[str] = frozenset({"flow"})

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)
        if self.keep not in ("top", "bottom"):
            raise InputError(f"expected keep among top, bottom, got {self.keep!r}")

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Throughput, boosted at the top."""
        if signals.throughput_BR is None or signals.traced_B is None:
            raise InputError("expected throughput_BR and traced_B among the signals, got none: this credit needs flow")
        scores_BR = -signals.throughput_BR if self.keep == "bottom" else signals.throughput_BR
        weights_BR = boost_top(scores_BR, signals.mask_BR, ratio=self.ratio, gamma=self.gamma)
        return torch.where(signals.traced_B[:, None], weights_BR, 1.0)
