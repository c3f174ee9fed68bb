"""What a credit strategy is: per-token advantages from per-token signals.

1. A strategy says what it reads (`flowtracer.credit.signals`); a trainer or tracer computes that and nothing else.
2. It is called with the `Signals` of a batch and gives each response token its advantage. Any callable is a
   strategy; one that says nothing gets what costs nothing: mask, advantages, seeds.
3. Most strategies multiply the advantage by a factor: `signals.weighted(factors)`. Most of those rank tokens by a
   score and boost the top: `BoostCredit`, of which a strategy only says its scores.

Every strategy gives plain GRPO to a response that it has nothing to say about, and leaves tokens off the mask at the
response's own advantage.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.credit.signals import Reads, Signals, check_choice
from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int

Credit = Callable[[Signals], Tensor]
"""A strategy: signals to advantages (B, R). It says in `needs`, or in `reads`, which signals it reads."""


SIGNS = ("both", "positive", "negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostCredit(ABC):
    """Factor `gamma` on the top `ratio` of a response's tokens by score, else 1.

    `keep="bottom"` boosts the other end, a control. `sign` says whose advantage the factors multiply: of "both"
    signs, or of "positive" or "negative" responses alone.
    """

    ratio: float = 0.4
    gamma: float = 1.5
    keep: str = "top"
    sign: str = "both"

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)
        check_choice("keep", self.keep, ("top", "bottom"))
        check_choice("sign", self.sign, SIGNS)
        _ = self.reads  # which checks the options that are in it

    @property
    def reads(self) -> Reads:
        """Nothing, unless a strategy says otherwise."""
        return Reads()

    @abstractmethod
    def scores(self, signals: Signals) -> Float[Tensor, "B R"]:
        """What tokens are ranked by; ignored off the mask."""

    def speaks(self, signals: Signals) -> Bool[Tensor, " B"]:
        """Responses that the scores say anything about; the others get plain GRPO."""
        return signals.mask_BR.any(-1)

    def factors(self, signals: Signals) -> Float[Tensor, "B R"]:
        """The boost, whatever the sign of the advantage."""
        scores_BR = self.scores(signals)
        scores_BR = -scores_BR if self.keep == "bottom" else scores_BR
        factors_BR = boost_top(scores_BR, signals.mask_BR, ratio=self.ratio, gamma=self.gamma)
        return torch.where(self.speaks(signals)[:, None], factors_BR, 1.0)

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Advantages times factors."""
        return signals.weighted(of_sign(self.factors(signals), signals, self.sign))


def of_sign(factors_BR: Float[Tensor, "B R"], signals: Signals, sign: str) -> Float[Tensor, "B R"]:
    """The factors of responses whose advantage has that sign, or of "both"; 1 for the others."""
    if sign == "both":
        return factors_BR
    chosen_B = signals.advantages_B > 0 if sign == "positive" else signals.advantages_B < 0
    return torch.where(chosen_B[:, None], factors_BR, 1.0)


def check_boost(ratio: float, gamma: float) -> None:
    """Options that all boosting strategies share."""
    check_share("ratio", ratio)
    if not (gamma > 0 and math.isfinite(gamma)):
        raise InputError(f"expected gamma above 0, the factor of boosted tokens, got {gamma}")


def check_share(name: str, value: float) -> None:
    """Raise unless an option is a share of tokens."""
    if not 0 < value <= 1:
        raise InputError(f"expected {name} in (0, 1], a share of the tokens, got {value}")


def boost_top(
    scores_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"], *, ratio: float, gamma: float
) -> Float[Tensor, "B R"]:
    """Factor `gamma` on the top `ratio` of each response's tokens by score, 1 on the rest."""
    return torch.where(top_share(scores_BR, mask_BR, ratio), gamma, 1.0)


def top_share(scores_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"], ratio: float) -> Bool[Tensor, "B R"]:
    """The top `ratio` of each response's tokens by score.

    Of `n` counted tokens `ceil(ratio n)` are chosen, so that one token always is; of equal scores the earlier wins.
    """
    rank_BR = ranks(scores_BR, mask_BR)
    return (rank_BR < share_count(mask_BR, ratio)[:, None]) & mask_BR


def share_count(mask_BR: Bool[Tensor, "B R"], ratio: float) -> Float[Tensor, " B"]:
    """`ceil(ratio n)` of each response's `n` counted tokens."""
    # 0.1 * 30 is a hair above 3 in floating point, and must not become 4.
    return (mask_BR.sum(-1) * ratio - 1e-9).ceil()


def ranks(scores_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Int[Tensor, "B R"]:
    """Place of each counted token by score, the highest 0; of equal scores the earlier first, uncounted ones last."""
    order_BR = scores_BR.masked_fill(~mask_BR, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    places_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    return torch.empty_like(order_BR).scatter_(1, order_BR, places_R.expand_as(order_BR))


def masked_quantile(
    values_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"], quantile: float
) -> Float[Tensor, "B 1"]:
    """Quantile, interpolated, of each row's counted values; NaN where none is counted."""
    return values_BR.float().masked_fill(~mask_BR, torch.nan).nanquantile(quantile, dim=-1, keepdim=True)
