"""What each strategy makes of a minibatch: advantages per token, and the scores that it ranks tokens by.

Strategies that read the same of a model read it together. A strategy is named as in `CREDITS`, with options behind a
colon: "flow", "flow:keep=bottom", "flow:gamma=1000000", which is as good as learning from its top share alone, since
the meter takes the length of the step out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.checks.meter.rollouts import Batch
from flowtracer.credit import Credit, Signals, make_credit, of_text, token_factors
from flowtracer.credit.naming import named_options, split_names
from flowtracer.credit.signals import GroupSignals
from flowtracer.credit.together import read_together
from flowtracer.errors import InputError
from flowtracer.shapes import Float
from flowtracer.signals.reader import SignalReader
from flowtracer.tasks import LabelledTask
from flowtracer.text.offsets import token_offsets

CONTROLS = ("flow:keep=bottom",)
"""Measured beside all strategies: the other end must lose."""
ORACLES = ("oracle", "oracle_gate")
"""Planted truth, where a task has it."""


def parse_strategies(text: str) -> dict[str, Credit]:
    """Strategies as a command line names them: "all", "flow,position", "flow:keep=bottom,ratio=0.2,position".

    Raises:
        InputError: An unknown strategy or option.
    """
    chosen = [name for part in split_names(text) for name in ([*of_text(), *CONTROLS] if part == "all" else [part])]
    if not chosen:
        raise InputError(f'expected strategies such as "flow,position" or "all", got {text!r}')
    return {name: _strategy(name) for name in chosen}


def _strategy(text: str) -> Credit:
    name, options = named_options(text)
    # No task here is answered in boxes.
    return make_credit(name, {"target": "answer", **options} if name == "grail" else options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What one strategy makes of a minibatch."""

    advantages_BR: Float[Tensor, "B R"]
    scores_BR: Float[Tensor, "B R"]
    """What it ranks tokens by; its factors where it ranks none. NaN in responses that it is silent about."""


class Strategies:
    """Strategies over one model.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        strategies: By name.
        temperature: What logits are divided by.
        rows_per_forward: Sequences in one forward.
        answer_pattern: How responses state their answer; None for the usual ways.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        strategies: Mapping[str, Credit],
        *,
        temperature: float = 1.0,
        rows_per_forward: int = 16,
        answer_pattern: str | None = None,
    ) -> None:
        self._order = list(strategies)
        self._together = read_together(strategies)
        self._readers = [
            SignalReader(
                model,
                tokenizer,
                together,
                temperature=temperature,
                rows_per_forward=rows_per_forward,
                answer_pattern=answer_pattern,
            )
            for together in self._together
        ]

    def place(self, batch: Batch) -> dict[str, Placed]:
        """What each strategy makes of a minibatch, in their order.

        Raises:
            CaptureError: The model's attention or logits cannot be read.
        """
        sampled, placed = batch.sampled, {}
        group = GroupSignals(
            token_ids_BR=sampled.response_ids_BR,
            groups_B=torch.arange(len(sampled), device=sampled.device) // batch.size,
            rewards_B=batch.rewards_B,
            baselines_B=batch.baselines_B(),
        )
        for together, reader in zip(self._together, self._readers, strict=True):
            readings, _ = reader.read(sampled, batch.seeds_B)
            signals = Signals(
                mask_BR=sampled.response_mask_BR.bool(),
                advantages_B=batch.advantages_B(),
                seeds_B=batch.seeds_B,
                readings=replace(readings, group=group),
            )
            for name, credit in together.credits.items():
                placed[name] = _place(credit, signals)
        return {name: placed[name] for name in self._order}


def place_oracles(task: LabelledTask, tokenizer: Any, batch: Batch) -> dict[str, Placed]:
    """Credit by planted truth: 1.5 on all but the steps that distract, or nothing on those.

    If not even the truth is worth anything, the task measures nothing.
    """
    distracts_BR = torch.zeros_like(batch.sampled.response_mask_BR, dtype=torch.bool)
    responses = [(group.problem, ids) for group in batch.groups for ids in group.response_ids]
    for row, (problem, ids) in enumerate(responses):
        text, offsets = token_offsets(tokenizer, list(ids))
        for step in task.label(problem, text):
            if not step.needed:
                for place, (start, stop) in enumerate(offsets):
                    distracts_BR[row, place] |= start < step.span.stop and stop > step.span.start
    kept_BR = (~distracts_BR).float()
    advantages_B1 = batch.advantages_B()[:, None]
    return {
        "oracle": Placed(advantages_BR=advantages_B1 * (1 + 0.5 * kept_BR), scores_BR=kept_BR),
        "oracle_gate": Placed(advantages_BR=advantages_B1 * kept_BR, scores_BR=kept_BR),
    }


def _place(credit: Credit, signals: Signals) -> Placed:
    advantages_BR = credit(signals)
    scores = getattr(credit, "scores", None)
    if scores is None:
        scores_BR = token_factors(advantages_BR, signals.advantages_B)
    else:
        scores_BR = -scores(signals) if getattr(credit, "keep", "top") == "bottom" else scores(signals)
    speaks = getattr(credit, "speaks", None)
    says_B = signals.mask_BR.any(-1) if speaks is None else speaks(signals)
    return Placed(advantages_BR=advantages_BR, scores_BR=scores_BR.float().masked_fill(~says_B[:, None], torch.nan))
