"""Per-token advantages as a trainer takes and logs them: pure functions of tensors."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from flowtracer.credit import Credit, Signals
from flowtracer.credit.signals import GroupSignals
from flowtracer.shapes import Bool, Float, Int


def token_advantages(credit: Credit, signals: Signals, *, normalise: bool) -> Float[Tensor, "B R"]:
    """What a strategy gives each token; with `normalise`, in the size of the responses' own advantages."""
    advantages_BR = credit(signals)
    return normalised(advantages_BR, signals.advantages_B, signals.mask_BR) if normalise else advantages_BR


def response_seeds(ids_BR: Int[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"], seed: int) -> tuple[int, ...]:
    """A seed from each response's own counted tokens, so that it does not depend on the batch it stands in."""
    rows = zip(ids_BR.cpu(), mask_BR.cpu(), strict=True)
    return tuple(zlib.crc32(ids[mask].numpy().tobytes(), seed & 0xFFFFFFFF) for ids, mask in rows)


def group_of(prompts: Sequence[Hashable], ids_BR: Int[Tensor, "B R"], rewards_B: Float[Tensor, " B"]) -> GroupSignals:
    """Responses to equal prompts as a group, with its mean reward."""
    numbers: dict[Hashable, int] = {}
    groups_B = torch.tensor([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], device=rewards_B.device)
    sums_G = rewards_B.new_zeros(len(numbers)).index_add(0, groups_B, rewards_B)
    means_G = sums_G / groups_B.bincount()
    return GroupSignals(token_ids_BR=ids_BR, groups_B=groups_B, rewards_B=rewards_B, baselines_B=means_G[groups_B])


def normalised(
    advantages_BR: Float[Tensor, "B R"], advantages_B: Float[Tensor, " B"], mask_BR: Bool[Tensor, "B R"]
) -> Float[Tensor, "B R"]:
    """Token advantages scaled so that their mean size over each response's counted tokens is the response's own.

    For strategies that multiply by a factor the mean factor becomes 1. A boost alone makes the policy term larger (1.2
    times by the paper's defaults); this keeps its size and moves only where it lands. A response without an advantage,
    or whose tokens have none, stays as it is.
    """
    total_B = (advantages_BR.abs() * mask_BR).sum(-1)
    scale_B = advantages_B.abs() * mask_BR.sum(-1) / total_B
    return advantages_BR * torch.where((total_B > 0) & (advantages_B != 0), scale_B, 1.0)[:, None]


def boosted(
    advantages_BR: Float[Tensor, "B R"], advantages_B: Float[Tensor, " B"], mask_BR: Bool[Tensor, "B R"]
) -> Bool[Tensor, "B R"]:
    """Counted tokens whose advantage is larger than the response's, in size."""
    return (advantages_BR.abs() > advantages_B.abs()[:, None]) & mask_BR
