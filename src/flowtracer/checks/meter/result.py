"""What the meter found, as plain data: a table, JSON, and a few responses to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flowtracer.checks.meter.direction import Direction
from flowtracer.checks.meter.minibatch import Measured
from flowtracer.checks.meter.rollouts import Group
from flowtracer.checks.meter.truth import TokenTruth
from flowtracer.checks.meter.worth import UNIFORM, Mix, Worth, gains
from flowtracer.credit import token_factors
from flowtracer.intervals import Interval, mean_interval, share_interval

NOISY = 1 / 3
"""Cosine of the halves below which more than half of the squared length of `g*` is noise: 2r / (1 + r) < 1/2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueGradient:
    """How well the true gradient is known."""

    rollouts: int
    accuracy: Interval
    """Share of rollouts with full reward."""
    informative: float
    """Share of groups whose rewards differ: the others say nothing."""
    halves: float
    """Cosine of the estimates from the two halves of the rollouts."""
    length: float
    uniform: Interval
    """Cosine of plain GRPO's minibatch gradients with it."""

    @property
    def silent(self) -> bool:
        """Not even plain GRPO's steps can be told from random ones."""
        return not self.uniform.low > 0

    def verdict(self) -> str:
        """In plain words, whether it can say anything."""
        if self.silent:
            return (
                "g* is too noisy to say anything: plain GRPO's own steps do not point along it. Take more rollouts, "
                "or a task that the model solves between 10 and 90 %"
            )
        signal = 2 * self.halves / (1 + self.halves)
        if self.halves < NOISY:
            return (
                f"g* is noisy: about {max(signal, 0):.0%} of its squared length is signal. Intervals hold, but what "
                "single tokens contribute is blurred"
            )
        return f"g* is well known: about {signal:.0%} of its squared length is signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One response, token by token."""

    prompt: str
    reward: float
    advantage: float
    tokens: Sequence[str]
    contributions: Sequence[float]
    """What each adds to the reward, over the largest of the response."""
    credits: Mapping[str, Sequence[float]]
    """Factor of each token by strategy: what its advantage was multiplied by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterResult:
    """What strategies are worth at one policy."""

    model: str
    task: str
    minibatches: int
    batch: int
    """Responses of a minibatch."""
    loss_type: str
    parameters: str
    truth: TrueGradient
    worths: Sequence[Worth]
    """The largest first."""
    mix: Mix | None
    tokens: Sequence[TokenTruth]
    """Per-token truth of every strategy."""
    examples: Sequence[Example]
    seconds: Mapping[str, float]
    """By stage, of this run: what a folder held already took none."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        found = asdict(self)
        for row, worth in zip(found["worths"], self.worths, strict=True):
            row["rollouts"] = worth.rollouts
        return found | {"verdict": self.truth.verdict()}


def true_gradient(
    groups: Sequence[Group], direction: Direction, measured: Sequence[Measured], names: Sequence[str]
) -> TrueGradient:
    """How well `g*` is known, out of the rollouts that it was made of and plain GRPO's minibatches."""
    rewards = [value for group in groups for value in group.rewards]
    length = float(direction.whole_N().norm())
    cosine_M = gains(measured, list(names).index(UNIFORM)) / length if length > 0 else np.zeros(len(measured))
    return TrueGradient(
        rollouts=len(rewards),
        accuracy=share_interval([value == 1 for value in rewards]),
        informative=float(np.mean([len(set(group.rewards)) > 1 for group in groups])),
        halves=direction.agreement(),
        length=length,
        uniform=mean_interval(cosine_M),
    )


def examples(
    tokenizer: Any, groups: Sequence[Group], measured: Measured, names: Sequence[str], *, count: int = 3
) -> list[Example]:
    """Right and wrong responses of one minibatch: those of a group to which tokens matter most, of `count` groups."""
    size = len(groups[0].rewards)
    contributions_BR = measured.contributions_BR()
    moved_B = contributions_BR.abs().sum(-1)
    order = sorted(range(len(groups)), key=lambda number: -float(moved_B[number * size :][:size].sum()))
    found = []
    for number in order[:count]:
        rows = [number * size + place for place in range(size) if measured.advantages_B[number * size + place] != 0]
        for right in (True, False):
            own = [row for row in rows if (measured.advantages_B[row] > 0) == right]
            if own:
                found.append(
                    _example(tokenizer, groups[number], measured, max(own, key=lambda row: float(moved_B[row])), names)
                )
    return found


def _example(tokenizer: Any, group: Group, measured: Measured, row: int, names: Sequence[str]) -> Example:
    mask_R = measured.mask_BR[row]
    contributions_R = measured.contributions_BR()[row, mask_R]
    contributions_R = contributions_R / contributions_R.abs().max().clamp_min(1e-30)
    advantage_1 = measured.advantages_B[row : row + 1]
    factors = {
        name: token_factors(measured.advantages_SBR[place, row : row + 1, mask_R], advantage_1)[0].tolist()
        for place, name in enumerate(names)
    }
    return Example(
        prompt="\n".join(str(message["content"]) for message in group.problem.prompt),
        reward=float(measured.rewards_B[row]),
        advantage=float(advantage_1),
        tokens=[tokenizer.decode([token]) for token in measured.ids_BR[row, mask_R].tolist()],
        contributions=[round(value, 4) for value in contributions_R.tolist()],
        credits={name: [round(value, 3) for value in values] for name, values in factors.items()},
    )
