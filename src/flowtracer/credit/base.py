"""What a credit strategy is: per-token factors from per-token signals.

A strategy says what it `needs`; a trainer or tracer computes only that, calls the strategy with the signals of a
batch, and multiplies each token's advantage by the factor it gets back, whatever the advantage's sign. Any callable
with those two members is a strategy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Per-token signals of a batch of responses. What no strategy asked for is None."""

    mask_BR: Bool[Tensor, "B R"]
    """Tokens that the loss counts; only these are ranked and weighted."""
    seeds_B: tuple[int, ...]
    """A seed of each response, the same in whatever batch it stands."""
    throughput_BR: Float[Tensor, "B R"] | None = None
    """tau of each response token."""
    traced_B: Bool[Tensor, " B"] | None = None
    """Whether the response has an answer that the question flows to; where not, its throughput says nothing."""


@runtime_checkable
class Credit(Protocol):
    """A credit strategy."""

    @property
    def needs(self) -> frozenset[str]:
        """Signals that must be computed: a subset of {"flow"}."""
        ...

    def __call__(self, signals: Signals) -> Float[Tensor, "B R"]:
        """Factors, 1 wherever the strategy has nothing to say; ignored off the mask."""
        ...


def check_boost(ratio: float, gamma: float) -> None:
    """Options that all boosting strategies share."""
    if not 0 < ratio <= 1:
        raise InputError(f"expected ratio in (0, 1], the share of tokens that are boosted, got {ratio}")
    if not (gamma > 0 and math.isfinite(gamma)):
        raise InputError(f"expected gamma above 0, the factor of boosted tokens, got {gamma}")


def boost_top(
    scores_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"], *, ratio: float, gamma: float
) -> Float[Tensor, "B R"]:
    """Factor `gamma` on the top `ratio` of each response's tokens by score, 1 on the rest.

    Of `n` counted tokens `ceil(ratio n)` are boosted, so that one token always is; of equal scores the earlier wins.
    """
    ranked_BR = scores_BR.masked_fill(~mask_BR, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    # 0.1 * 30 is a hair above 3 in floating point, and must not become 4.
    counts_B = (mask_BR.sum(-1) * ratio - 1e-9).ceil()
    rank_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    boosted_BR = torch.zeros_like(mask_BR).scatter(1, ranked_BR, rank_R < counts_B[:, None])
    return torch.where(boosted_BR & mask_BR, gamma, 1.0)
