"""One minibatch: every strategy's step against the true gradient, and what each token truly contributes.

1. Forward mode along the two halves of `g*`, each also in Adam's metric, gives every token's slope `d_it`; a fifth
   direction, drawn at random, gives its noise: `E <grad log pi, z>^2 = |grad log pi|^2`.
2. Strategies place their advantages. Two ceilings are chosen by the truth itself, `A_i d_it` along one half of `g*`, so
   that the other half can measure them: what is chosen by an estimate is flattered by that estimate's own noise.
3. `<g_c, g*> = sum_it a_it d_it`, and `|g_c|` by one backward pass a strategy, through one forward. On the first
   minibatch the two ways to `<g_c, g*>` must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from flowtracer.checks.meter.direction import Direction
from flowtracer.checks.meter.gradient import Policy
from flowtracer.checks.meter.loss import token_weights
from flowtracer.checks.meter.rollouts import Batch
from flowtracer.checks.meter.strategies import Placed
from flowtracer.credit.base import boost_top
from flowtracer.errors import CaptureError
from flowtracer.folders import write_atomically
from flowtracer.shapes import Bool, Float, Int

CEILINGS = ("ceiling", "ceiling_gate")
"""Boost the top tokens by truth, as strategies do by their scores; or let only those learn that truly contribute."""
_GRADIENT_BYTES = 2 * 2**30
"""Gradients of several strategies that are held at once."""
_AGREE = 1e-3
"""Of the sizes of what is summed up: how far the two ways to an inner product may be apart, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a minibatch says. `K` maps of advantages: the strategies, then each ceiling by each half of `g*`."""

    inner_K2: Float[Tensor, "K 2"]
    """`<g_c, g*>` with each half of `g*`."""
    norm_K: Float[Tensor, " K"]
    adam_inner_K2: Float[Tensor, "K 2"]
    """`<P g_c, g*>`."""
    adam_norm_K: Float[Tensor, " K"]
    gram_KK: Float[Tensor, "K K"]
    """`<g_c, g_c'>`; NaN where not all gradients were held at once."""
    ids_BR: Int[Tensor, "B R"]
    mask_BR: Bool[Tensor, "B R"]
    rewards_B: Float[Tensor, " B"]
    advantages_B: Float[Tensor, " B"]
    weights_B: Float[Tensor, " B"]
    """What the trainer's loss multiplies a token's advantage by."""
    slopes_2BR: Float[Tensor, "2 B R"]
    """`<grad log pi(y_it), g*>` with each half of `g*`."""
    noise_BR: Float[Tensor, "B R"]
    """`<grad log pi(y_it), z>`, `z` standard normal."""
    advantages_SBR: Float[Tensor, "S B R"]
    """Of each strategy."""
    scores_SBR: Float[Tensor, "S B R"]
    """What it ranks tokens by; NaN where it is silent."""

    def contributions_BR(self) -> Float[Tensor, "B R"]:
        """`A_i d_it`: what a token adds to the reward when plain GRPO takes a step."""
        return self.advantages_B[:, None] * self.slopes_2BR.mean(0)

    def save(self, file: Path) -> None:
        """Write all or nothing."""
        write_atomically(file, save({name: value.contiguous().cpu() for name, value in asdict(self).items()}))

    @classmethod
    def load(cls, file: Path) -> Measured:
        """What was saved."""
        tensors = load_file(file)
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})


def measure(
    policy: Policy,
    direction: Direction,
    batch: Batch,
    placed: Mapping[str, Placed],
    *,
    loss_type: str,
    max_tokens: int,
    seed: int,
    check: bool = False,
) -> Measured:
    """Measure the strategies on a minibatch.

    Args:
        policy: Whose gradients.
        direction: The true one.
        batch: Rollouts that it shares no problem with.
        placed: What each strategy makes of them.
        loss_type: The trainer's.
        max_tokens: Longest response allowed.
        seed: Of the random direction.
        check: Hold inner products by forward mode against those by the backward pass.

    Raises:
        CaptureError: They do not agree.
    """
    adam_N = direction.adam_N()
    generator = torch.Generator().manual_seed(seed)
    probe_N = torch.randn(policy.size, generator=generator).to(adam_N)
    slopes_5BR = policy.slopes(
        batch.sampled, torch.cat([direction.halves_2N, direction.halves_2N * adam_N, probe_N[None]])
    )
    mask_BR = batch.sampled.response_mask_BR.bool()
    advantages_B = batch.advantages_B()
    strategies_SBR = torch.stack([each.advantages_BR.float() for each in placed.values()])
    maps_KBR = torch.cat([strategies_SBR, ceilings(advantages_B, slopes_5BR[:2], mask_BR)]) * mask_BR
    weights_B = token_weights(loss_type, mask_BR, max_tokens=max_tokens).squeeze(-1)
    maps_KBR = maps_KBR * weights_B[:, None]
    inner_K4 = torch.einsum("kbr,dbr->kd", maps_KBR.double(), slopes_5BR[:4].double()).float()
    terms_BR = maps_KBR[0] * slopes_5BR[:2].mean(0) if check else None
    norm_K, adam_norm_K, gram_KK = _sizes(policy, direction, batch, maps_KBR, terms_BR)
    return Measured(
        inner_K2=inner_K4[:, :2],
        norm_K=norm_K,
        adam_inner_K2=inner_K4[:, 2:],
        adam_norm_K=adam_norm_K,
        gram_KK=gram_KK,
        ids_BR=batch.sampled.response_ids_BR,
        mask_BR=mask_BR,
        rewards_B=batch.rewards_B,
        advantages_B=advantages_B,
        weights_B=weights_B,
        slopes_2BR=slopes_5BR[:2],
        noise_BR=slopes_5BR[4],
        advantages_SBR=strategies_SBR,
        scores_SBR=torch.stack([each.scores_BR for each in placed.values()]),
    )


def _sizes(
    policy: Policy, direction: Direction, batch: Batch, maps_KBR: Float[Tensor, "K B R"], terms_BR: Tensor | None
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"], Float[Tensor, "K K"]]:
    """Norms of the gradient of each map, plain and as Adam scales it, and inner products where all fit at a time.

    Raises:
        CaptureError: The first map's inner product with the true gradient is not the sum of these terms.
    """
    adam_N = direction.adam_N()
    block = max(1, _GRADIENT_BYTES // (4 * policy.size))
    norms: list[Tensor] = []
    adam_norms: list[Tensor] = []
    gram_KK = torch.full((len(maps_KBR),) * 2, torch.nan)
    for start in range(0, len(maps_KBR), block):
        gradients_KN = policy.gradients(batch.sampled, maps_KBR[start : start + block])
        if terms_BR is not None and start == 0:
            _agree(terms_BR, gradients_KN[0], direction.whole_N())
        norms.append(gradients_KN.norm(dim=1))
        if block >= len(maps_KBR):
            gram_KK = gradients_KN @ gradients_KN.T
        adam_norms.append((gradients_KN.mul_(adam_N)).norm(dim=1))
    return torch.cat(norms), torch.cat(adam_norms), gram_KK


def ceilings(
    advantages_B: Float[Tensor, " B"], slopes_2BR: Float[Tensor, "2 B R"], mask_BR: Bool[Tensor, "B R"]
) -> Float[Tensor, "4 B R"]:
    """Advantages placed by the truth, as each half of `g*` tells it: of "ceiling" first, then of "ceiling_gate"."""
    contributions_2BR = advantages_B[:, None] * slopes_2BR
    boosted = [boost_top(each_BR, mask_BR, ratio=0.4, gamma=1.5) for each_BR in contributions_2BR]
    gated = [(each_BR > 0).to(each_BR.dtype) for each_BR in contributions_2BR]
    return advantages_B[:, None] * torch.stack([*boosted, *gated])


def _agree(terms_BR: Tensor, gradient_N: Tensor, direction_N: Tensor) -> None:
    forward, backward = float(terms_BR.double().sum()), float(gradient_N.double() @ direction_N.double())
    size = float(terms_BR.abs().sum())
    if abs(forward - backward) > _AGREE * size:
        raise CaptureError(
            f"expected one inner product by forward mode and by the backward pass, got {forward:.6g} and "
            f"{backward:.6g} out of terms of {size:.3g} in all: the model computes something else without "
            "fused attention; please report the model"
        )
