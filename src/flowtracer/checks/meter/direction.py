"""The true policy gradient `g*` of expected reward, in two halves, and the scale that Adam would put on it.

1. Plain policy gradient: `g* = mean_i A_i sum_t grad log pi(y_it)`, `A_i` the reward less its group's mean, times
   G/(G - 1), which makes it unbiased; no division by the deviation, no weighing by length.
2. Steps are dealt to two halves by turns. They share no problem, so the cosine between them says how much of `g*` is
   signal: with cosine `r` the whole has the share `2r / (1 + r)` of its squared length from the true gradient, in
   expectation.
3. Adam divides by the root of second moments: the mean over steps of the squared gradient of plain GRPO, as its
   trainer's loss weighs it. Where plain GRPO never moved a parameter there is no scale, and the parameter is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from flowtracer.checks.meter.gradient import Policy
from flowtracer.checks.meter.loss import token_weights
from flowtracer.checks.meter.rollouts import Batch, Group, as_batch
from flowtracer.folders import write_atomically
from flowtracer.shapes import Float

ADAM_EPSILON = 1e-8
"""As in torch's and in TRL's default."""
SAVE_EVERY = 8
"""Steps after which what was summed up is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The true gradient, as far as it is known."""

    halves_2N: Float[Tensor, "2 N"]
    """Two estimates from rollouts of their own."""
    moments_N: Float[Tensor, " N"]
    """Mean squared gradient of plain GRPO over minibatches."""

    def whole_N(self) -> Float[Tensor, " N"]:
        """The estimate from all rollouts."""
        return self.halves_2N.mean(0)

    def agreement(self) -> float:
        """Cosine of the halves: near 0 the rollouts say nothing, near 1 they say all."""
        return float(torch.nn.functional.cosine_similarity(self.halves_2N[0], self.halves_2N[1], dim=0))

    def adam_N(self) -> Float[Tensor, " N"]:
        """What Adam multiplies a gradient by."""
        scale_N = 1 / (self.moments_N.sqrt() + ADAM_EPSILON)
        return torch.where(self.moments_N > 0, scale_N, 0.0)


def grpo_weights(batch: Batch, loss_type: str, max_tokens: int) -> Float[Tensor, "B R"]:
    """What plain GRPO puts on each token's log-probability."""
    mask_BR = batch.sampled.response_mask_BR.bool()
    return batch.advantages_B()[:, None] * token_weights(loss_type, mask_BR, max_tokens=max_tokens) * mask_BR


def find_direction(
    policy: Policy,
    groups: Sequence[Group],
    *,
    groups_per_step: int,
    moment_steps: int,
    loss_type: str,
    max_tokens: int,
    file: Path,
    on_groups: Callable[[int], None] = lambda n: None,
) -> Direction:
    """The direction out of rollouts; what `file` holds of it already is not computed again.

    Args:
        policy: Whose gradient.
        groups: Rollouts.
        groups_per_step: Groups of one minibatch.
        moment_steps: Steps whose plain GRPO gradients enter the second moments.
        loss_type: The trainer's.
        max_tokens: Longest response allowed.
        file: Where sums are kept.
        on_groups: Called with the number of groups that were done since it was last called.
    """
    steps = [groups[start : start + groups_per_step] for start in range(0, len(groups), groups_per_step)]
    moment_steps = min(moment_steps, len(steps))
    size = policy.size
    sums = {
        "halves_2N": torch.zeros(2, size),
        "moments_N": torch.zeros(size),
        "done": torch.zeros((), dtype=torch.long),
    }
    if file.exists():
        sums = load_file(file)
        on_groups(sum(map(len, steps[: int(sums["done"])])))
    sums = {name: value.to(policy.device) for name, value in sums.items()}
    for number in range(int(sums["done"]), len(steps)):
        batch = as_batch(steps[number], policy.device)
        weights_KBR = [batch.centred_B()[:, None].expand(batch.sampled.response_ids_BR.shape)]
        if number < moment_steps:
            weights_KBR.append(grpo_weights(batch, loss_type, max_tokens))
        gradients_KN = policy.gradients(batch.sampled, torch.stack(weights_KBR))
        sums["halves_2N"][number % 2] += gradients_KN[0]
        if number < moment_steps:
            sums["moments_N"] += gradients_KN[1].square() / moment_steps
        sums["done"] += 1
        if (number + 1) % SAVE_EVERY == 0 or number + 1 == len(steps):
            write_atomically(file, save({name: value.cpu() for name, value in sums.items()}))
        on_groups(len(steps[number]))
    responses_2 = [sum(len(group.rewards) for step in steps[half::2] for group in step) for half in (0, 1)]
    halves_2N = sums["halves_2N"] / sums["halves_2N"].new_tensor(responses_2).clamp_min(1)[:, None]
    return Direction(halves_2N=halves_2N, moments_N=sums["moments_N"])
