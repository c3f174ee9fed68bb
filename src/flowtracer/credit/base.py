"""What a credit strategy is: per-token advantages from per-token signals.

1. A strategy says what it `needs`, names out of `NEEDS`. A trainer or tracer computes those signals and no others.
2. It is called with the `Signals` of a batch and gives each response token its advantage. Any callable is a
   strategy; one without a `needs` gets what costs nothing: mask, advantages, seeds.
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
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int

NEEDS: dict[str, tuple[str, ...]] = {
    "group": ("token_ids_BR", "groups_B", "rewards_B", "baselines_B"),
    "answer": ("answer_BR", "reasoning_BR"),
    "flow": ("throughput_BR", "traced_B"),
    "attention": ("received_BR", "row_entropy_BR"),
    "heads": ("local_distance_BR", "future_attention_BR"),
    "logits": ("entropy_BR", "log_prob_BR"),
    "gradient": ("saliency_BR", "saliency_before_BR"),
    "perturbation": ("influence_BR",),
    "gain": ("gain_BR",),
    "gold": ("score_gold",),
}
"""What a strategy may need, with the signals that it stands for."""

GoldScorer = Callable[[Tensor, str], tuple[Tensor, Tensor]]
"""From marked tokens (B, R) and the text that asks for the answer, the probability of the gold answer behind the
prompt alone (B,) and behind each marked token (B, R), 0 elsewhere. It runs the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Per-token signals of a batch of responses. What no strategy asked for is None."""

    mask_BR: Bool[Tensor, "B R"]
    """Tokens that the loss counts; only these are ranked and weighted."""
    advantages_B: Float[Tensor, " B"]
    """Advantage of each response."""
    seeds_B: tuple[int, ...]
    """A seed of each response, the same in whatever batch it stands."""
    trained: float = 0.0
    """Share of the training that is done."""

    token_ids_BR: Int[Tensor, "B R"] | None = None
    groups_B: Int[Tensor, " B"] | None = None
    """Number of each response's group: the responses to one prompt, as far as they are in this batch."""
    rewards_B: Float[Tensor, " B"] | None = None
    baselines_B: Float[Tensor, " B"] | None = None
    """Mean reward of each response's whole group."""

    answer_BR: Bool[Tensor, "B R"] | None = None
    """The response's own final answer; none where it has none."""
    reasoning_BR: Bool[Tensor, "B R"] | None = None
    """Tokens before the answer and before what opens it, such as a box; none where there is no answer."""

    throughput_BR: Float[Tensor, "B R"] | None = None
    """tau of each response token."""
    traced_B: Bool[Tensor, " B"] | None = None
    """Whether the response has an answer that the question flows to; where not, its throughput says nothing."""

    received_BR: Float[Tensor, "B R"] | None = None
    """Attention that later response tokens pay to each, summed; mean over heads and layers."""
    row_entropy_BR: Float[Tensor, "B R"] | None = None
    """Entropy of the row of attention of each token over the log of what it could attend to: 0 to 1."""

    local_distance_BR: Float[Tensor, "B R"] | None = None
    """WAAD: mean distance, cut off at 10 tokens, that the short-sighted heads look back."""
    future_attention_BR: Float[Tensor, "B R"] | None = None
    """FAI: mean attention that the far-sighted heads of tokens 10 to 100 later pay to each."""

    entropy_BR: Float[Tensor, "B R"] | None = None
    """Entropy, in nats, of the distribution that each token was drawn from."""
    log_prob_BR: Float[Tensor, "B R"] | None = None
    """Log-probability of each token."""

    saliency_BR: Float[Tensor, "B R"] | None = None
    """Norm of embedding times gradient of -log p(own answer), at each token."""
    saliency_before_BR: Float[Tensor, "B R"] | None = None
    """The same one position before, where the token is predicted."""
    influence_BR: Float[Tensor, "B R"] | None = None
    """|gradient . embedding| of how far noise on the reasoning moves the distribution of the answer."""

    gain_BR: Float[Tensor, "B R"] | None = None
    """How much the log-probability of each token grows when the prompt reveals the gold answer."""
    score_gold: GoldScorer | None = None

    def need(self, name: str) -> tuple[Any, ...]:
        """The signals that a need stands for, in the order of `NEEDS`.

        Raises:
            InputError: They were not computed.
        """
        values = tuple(getattr(self, field) for field in NEEDS[name])
        if any(value is None for value in values):
            missing = " and ".join(NEEDS[name])
            raise InputError(f"expected {missing} among the signals, got none: this credit needs {name}")
        return values

    def weighted(self, factors_BR: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
        """Each response's advantage times its tokens' factors; with factors of 1, the advantage to the bit."""
        return self.advantages_B[:, None] * factors_BR.to(self.advantages_B.dtype)


Credit = Callable[[Signals], Tensor]
"""A strategy: signals to advantages (B, R). It may say in an attribute `needs` which signals it reads."""


def needs_of(credit: Credit) -> frozenset[str]:
    """What a strategy needs.

    Raises:
        InputError: A need that does not exist.
    """
    needs = frozenset(getattr(credit, "needs", ()))
    if not needs <= NEEDS.keys():
        raise InputError(f"expected needs among {sorted(NEEDS)}, got {sorted(needs - NEEDS.keys())}")
    return needs


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
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        check_boost(self.ratio, self.gamma)
        check_choice("keep", self.keep, ("top", "bottom"))
        check_choice("sign", self.sign, ("both", "positive", "negative"))
        self.check()

    def check(self) -> None:  # noqa: B027 - most strategies have no options of their own to check
        """Raise on an option of the strategy's own that it cannot use."""

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
        factors_BR = self.factors(signals)
        if self.sign != "both":
            chosen_B = signals.advantages_B > 0 if self.sign == "positive" else signals.advantages_B < 0
            factors_BR = torch.where(chosen_B[:, None], factors_BR, 1.0)
        return signals.weighted(factors_BR)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless an option has one of its values."""
    if value not in choices:
        raise InputError(f"expected {name} among {', '.join(choices)}, got {value!r}")


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
