"""Signals for strategies: by hand, and drawn at random with everything that any of them may need."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from flowtracer.credit import NEEDS, Readings, Signals
from flowtracer.credit import signals as of_needs

KINDS = {
    "group": of_needs.GroupSignals,
    "answer": of_needs.AnswerSignals,
    "flow": of_needs.FlowSignals,
    "attention": of_needs.AttentionSignals,
    "heads": of_needs.HeadSignals,
    "logits": of_needs.LogitSignals,
    "output": of_needs.OutputSignals,
    "alignment": of_needs.AlignmentSignals,
    "gradient": of_needs.GradientSignals,
    "perturbation": of_needs.PerturbationSignals,
    "gain": of_needs.GainSignals,
    "gold": of_needs.GoldSignals,
    "visual": of_needs.VisualSignals,
    "blackened": of_needs.BlackenedSignals,
    "noisy": of_needs.NoisySignals,
}
assert set(KINDS) == set(NEEDS)
MARKS = {"answer_BR", "whole_BR", "reasoning_BR", "traced_B", "shown_B"}


def full_mask(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def signals_of(mask_BR: torch.Tensor | int, advantages: list[float] | None = None, **given: Any) -> Signals:
    """Signals of a batch, fields of needs by their own names; a number stands for one response of so many tokens.

    Fields of a given need that are not given themselves are 0.
    """
    mask_BR = full_mask(mask_BR) if isinstance(mask_BR, int) else mask_BR
    values = [1.0] * len(mask_BR) if advantages is None else advantages
    return Signals(
        mask_BR=mask_BR,
        advantages_B=torch.tensor(values),
        seeds_B=tuple(range(len(mask_BR))),
        trained=given.pop("trained", 0.0),
        readings=readings_of(mask_BR, given),
    )


def readings_of(mask_BR: torch.Tensor, given: dict[str, Any]) -> Readings:
    """Needs that hold what is given."""
    found = {}
    for need, kind in KINDS.items():
        names = [field.name for field in fields(kind)]
        if given.keys() & names:
            found[need] = kind(**{name: given[name] if name in given else _nothing(name, mask_BR) for name in names})
    assert given.keys() <= {field.name for kind in KINDS.values() for field in fields(kind)}, given
    return Readings(**found)


def _nothing(name: str, mask_BR: torch.Tensor) -> torch.Tensor | None:
    shape = mask_BR.shape if name.endswith("_BR") else mask_BR.shape[:1]
    kind = torch.long if name in ("token_ids_BR", "groups_B") else torch.float32
    return torch.zeros(shape, dtype=torch.bool if name in MARKS else kind)


class TableScorer:
    """A gold scorer that looks its probabilities up."""

    def __init__(self, start_B: torch.Tensor, behind_BR: torch.Tensor) -> None:
        self.start_B, self.behind_BR = start_B, behind_BR
        self.asked: list[tuple[str, str]] = []

    def __call__(self, marks_BR: torch.Tensor, cue: str, end: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append((cue, end))
        return self.start_B.log(), torch.where(marks_BR, self.behind_BR, 0.0).log()


class TableAligner:
    """An aligner that looks its inner products up."""

    def __init__(self, aligned_BR: torch.Tensor) -> None:
        self.aligned_BR = aligned_BR

    def __call__(self, groups_B: torch.Tensor, right_B: torch.Tensor) -> torch.Tensor:
        return self.aligned_BR


def random_signals(lengths: list[int], seed: int) -> Signals:
    """Everything, for responses of these lengths in groups of two; the first is right, the second wrong."""
    generator = torch.Generator().manual_seed(seed)
    mask_BR = full_mask(*lengths)
    batch, width = mask_BR.shape

    def draw() -> torch.Tensor:
        return torch.rand(batch, width, generator=generator)

    answer_BR, whole_BR, reasoning_BR = torch.zeros(3, batch, width, dtype=torch.bool)
    for row, n in enumerate(lengths):
        if n >= 3 and row % 3 != 2:  # every third has no answer
            answer_BR[row, n - 2] = True
            whole_BR[row, n - 2 : n] = True
            reasoning_BR[row, : n - 2] = True
    rewards_B = (torch.arange(batch) % 2).float()
    given = {
        "token_ids_BR": torch.randint(0, 9, mask_BR.shape, generator=generator),
        "groups_B": torch.arange(batch) // 2,
        "rewards_B": rewards_B,
        "baselines_B": torch.full((batch,), 0.5),
        "answer_BR": answer_BR,
        "whole_BR": whole_BR,
        "reasoning_BR": reasoning_BR,
        "traced_B": answer_BR.any(-1),
        "score": TableScorer(torch.rand(batch, generator=generator), draw()),
        **{name: draw().log() for name in ("log_prob_BR", "blackened_log_prob_BR", "noisy_log_prob_BR")},
        "shown_B": torch.arange(batch) % 4 != 3,  # every fourth prompt shows nothing
        "gradient_BRD": torch.randn(batch, width, 4, generator=generator),
        "gain_BR": draw() - 0.5,
        "align": TableAligner(draw() - 0.3),
    }
    drawn = {name: draw() for kind in KINDS.values() for name in (f.name for f in fields(kind)) if name not in given}
    return Signals(
        mask_BR=mask_BR,
        advantages_B=torch.randn(batch, generator=generator),
        seeds_B=tuple(range(seed, seed + batch)),
        trained=0.3,
        readings=readings_of(mask_BR, given | drawn),
    )


def change_tensors(value: Any, change: Any) -> Any:
    """The same signals with `change` applied to each tensor."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, TableScorer):
        return TableScorer(change(value.start_B), change(value.behind_BR))
    if isinstance(value, TableAligner):
        return TableAligner(change(value.aligned_BR))
    if is_dataclass(value):
        return replace(
            value, **{field.name: change_tensors(getattr(value, field.name), change) for field in fields(value)}
        )
    return value


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor of the signals, in order."""
    found: list[torch.Tensor] = []
    change_tensors(value, lambda tensor: found.append(tensor) or tensor)
    return found
