"""Sampled rollouts, in groups: the responses to one problem, as the token ids that the model drew.

Each response has random numbers of its own (`model/generate.py`), so a run that was interrupted draws on to the very
rollouts that it would have had. A group is a line of `rollouts.jsonl`, added as soon as it is judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtracer.folders import LineFile
from flowtracer.model.generate import Reply, Sampling, draw_name, sample
from flowtracer.shapes import Float
from flowtracer.signals.sampled import Sampled
from flowtracer.tasks import Problem, Task, reward
from flowtracer.text.encoding import encode_prompt

EPSILON = 1e-4
"""What TRL adds to the deviation of a group's rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The responses to one problem."""

    problem: Problem
    prompt_ids: Sequence[int]
    response_ids: Sequence[Sequence[int]]
    """With the token that ends the turn, where a response came to its end."""
    rewards: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole groups, as a trainer takes them."""

    groups: Sequence[Group]
    sampled: Sampled
    rewards_B: Float[Tensor, " B"]
    seeds_B: tuple[int, ...]
    """Of each response, whatever batch it stands in."""

    @property
    def size(self) -> int:
        """Responses to a problem."""
        return len(self.groups[0].rewards)

    def centred_B(self) -> Float[Tensor, " B"]:
        """Rewards less their group's mean, times G/(G - 1): plain policy gradient's, without bias."""
        rewards_NG = self.rewards_B.view(-1, self.size)
        centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
        return (centred_NG * self.size / (self.size - 1)).flatten()

    def advantages_B(self) -> Float[Tensor, " B"]:
        """GRPO's, as TRL computes them: centred by group and divided by the group's deviation."""
        rewards_NG = self.rewards_B.view(-1, self.size)
        centred_NG = rewards_NG - rewards_NG.mean(1, keepdim=True)
        return (centred_NG / (rewards_NG.std(1, keepdim=True) + EPSILON)).flatten()

    def baselines_B(self) -> Float[Tensor, " B"]:
        """Mean reward of each response's group."""
        return self.rewards_B.view(-1, self.size).mean(1).repeat_interleave(self.size)


def as_batch(groups: Sequence[Group], device: torch.device) -> Batch:
    """Groups as padded tensors."""
    problems = [group.problem for group in groups for _ in group.rewards]
    names = [draw_name(group.problem.id, number) for group in groups for number in range(len(group.rewards))]
    return Batch(
        groups=groups,
        sampled=Sampled.padded(
            [(group.prompt_ids, ids) for group in groups for ids in group.response_ids],
            device,
            prompts=[problem.prompt for problem in problems],
            golds=[problem.gold for problem in problems],
        ),
        rewards_B=torch.tensor([value for group in groups for value in group.rewards], device=device),
        seeds_B=tuple(zlib.crc32(name.encode()) for name in names),
    )


class RolloutFile:
    """Groups on disk, and those that are still to be drawn.

    Args:
        file: Where groups are kept, in the order of the problems.
        problems: What is asked.
        task: What judges the responses.
        group: Responses to a problem.
        sampling: How they are drawn.
        batch_size: Responses at a time.
    """

    def __init__(
        self,
        file: LineFile,
        problems: Sequence[Problem],
        task: Task,
        *,
        group: int,
        sampling: Sampling,
        batch_size: int = 256,
    ) -> None:
        self._file = file
        self._problems = problems
        self._task = task
        self._group = group
        self._sampling = sampling
        self._batch_size = batch_size

    def draw(self, model: Any, tokenizer: Any, on_groups: Callable[[int], None] = lambda n: None) -> list[Group]:
        """All groups; those that the file lacks are drawn first.

        Raises:
            InputError: The tokenizer has no chat template, or no token to end or to pad with.
        """
        held = self._file.by("problem")
        missing = [problem for problem in self._problems if problem.id not in held]
        on_groups(len(self._problems) - len(missing))
        few = max(1, self._batch_size // self._group)
        for start in range(0, len(missing), few):
            lines = list(self._draw(model, tokenizer, missing[start : start + few]))
            self._file.add(lines)
            held |= {line["problem"]: line for line in lines}
            on_groups(len(lines))
        return [_group(problem, held[problem.id]) for problem in self._problems]

    def _draw(self, model: Any, tokenizer: Any, problems: Sequence[Problem]) -> Iterator[dict[str, Any]]:
        prompts = [problem.prompt for problem in problems for _ in range(self._group)]
        names = [draw_name(problem.id, number) for problem in problems for number in range(self._group)]
        replies: dict[int, Reply] = {}
        for batch in sample(model, tokenizer, prompts, names, sampling=self._sampling, batch_size=self._batch_size):
            replies |= batch
        for place, problem in enumerate(problems):
            own = [replies[place * self._group + number] for number in range(self._group)]
            yield {
                "problem": problem.id,
                "prompt_ids": encode_prompt(tokenizer, problem.prompt),
                "response_ids": [list(reply.ids) for reply in own],
                "rewards": [reward(self._task.verify(problem, reply.text)) for reply in own],
            }


def _group(problem: Problem, line: dict[str, Any]) -> Group:
    return Group(problem=problem, **{name: line[name] for name in ("prompt_ids", "response_ids", "rewards")})
