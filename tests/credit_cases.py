"""Signals for strategies: by hand, and drawn at random with everything that any of them may need."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from flowtracer.credit import Signals


def full_mask(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def signals_of(mask_BR: torch.Tensor | int, advantages: list[float] | None = None, **given: Any) -> Signals:
    """Signals of a batch; a number stands for one response of so many tokens."""
    mask_BR = full_mask(mask_BR) if isinstance(mask_BR, int) else mask_BR
    values = [1.0] * len(mask_BR) if advantages is None else advantages
    return Signals(mask_BR=mask_BR, advantages_B=torch.tensor(values), seeds_B=tuple(range(len(mask_BR))), **given)


class TableScorer:
    """A gold scorer that looks its probabilities up."""

    def __init__(self, start_B: torch.Tensor, behind_BR: torch.Tensor) -> None:
        self.start_B, self.behind_BR = start_B, behind_BR
        self.cues: list[str] = []

    def __call__(self, marks_BR: torch.Tensor, cue: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.cues.append(cue)
        return self.start_B, torch.where(marks_BR, self.behind_BR, 0.0)


def random_signals(lengths: list[int], seed: int) -> Signals:
    """Everything, for responses of these lengths in groups of two; the first is right, the second wrong."""
    generator = torch.Generator().manual_seed(seed)
    mask_BR = full_mask(*lengths)
    batch, width = mask_BR.shape

    def draw() -> torch.Tensor:
        return torch.rand(batch, width, generator=generator)

    answer_BR, reasoning_BR = torch.zeros(2, batch, width, dtype=torch.bool)
    for row, n in enumerate(lengths):
        if n >= 3 and row % 3 != 2:  # every third has no answer
            answer_BR[row, n - 2] = True
            reasoning_BR[row, : n - 2] = True
    rewards_B = (torch.arange(batch) % 2).float()
    return Signals(
        mask_BR=mask_BR,
        advantages_B=torch.randn(batch, generator=generator),
        seeds_B=tuple(range(seed, seed + batch)),
        trained=0.3,
        token_ids_BR=torch.randint(0, 9, mask_BR.shape, generator=generator),
        groups_B=torch.arange(batch) // 2,
        rewards_B=rewards_B,
        baselines_B=torch.full((batch,), 0.5),
        answer_BR=answer_BR,
        reasoning_BR=reasoning_BR,
        throughput_BR=draw(),
        traced_B=answer_BR.any(-1),
        received_BR=draw(),
        row_entropy_BR=draw(),
        local_distance_BR=draw(),
        future_attention_BR=draw(),
        entropy_BR=draw(),
        log_prob_BR=draw().log(),
        saliency_BR=draw(),
        saliency_before_BR=draw(),
        influence_BR=draw(),
        gain_BR=draw() - 0.5,
        score_gold=TableScorer(torch.rand(batch, generator=generator), draw()),
    )


def change_tensors(signals: Signals, change: Any) -> Signals:
    """The same signals with `change` applied to each tensor."""
    values = {field.name: getattr(signals, field.name) for field in fields(signals)}
    changed = {name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)}
    scorer = signals.score_gold
    if isinstance(scorer, TableScorer):
        changed["score_gold"] = TableScorer(change(scorer.start_B), change(scorer.behind_BR))
    return replace(signals, **changed)
