"""Signals of sampled responses: only here is it chosen what a credit strategy's needs make the model compute.

Forwards are shared where needs allow it: the answer is located once, and log-probabilities serve gain and entropy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from flowtracer.capture import AttentionReader
from flowtracer.credit import Credit, needs_of
from flowtracer.errors import InputError
from flowtracer.signals.answers import Answers, locate_answers
from flowtracer.signals.flow import read_flow
from flowtracer.signals.gold import PrefixScorer, read_gain
from flowtracer.signals.gradients import read_influence, read_saliency
from flowtracer.signals.heads import head_scores, mean_scores, spread_reader
from flowtracer.signals.logits import LogitReader, token_logits
from flowtracer.signals.sampled import Sampled

__all__ = ["Sampled", "SignalReader", "refuse_sharded"]

_OF_ANSWER = frozenset({"answer", "flow", "gradient", "perturbation"})
_UNEVEN = frozenset({"gradient", "perturbation", "gold"})
"""Needs whose number of forwards depends on the responses, or that run a backward pass of their own."""


def refuse_sharded(credit: Credit) -> None:
    """Raise where a strategy cannot run on a model that is sharded over processes.

    Raises:
        InputError: Processes would wait for each other for ever.
    """
    uneven = sorted(needs_of(credit) & _UNEVEN)
    if uneven:
        raise InputError(
            f"expected a model that every process holds whole, got one sharded by FSDP or ZeRO: {', '.join(uneven)} "
            "takes another number of passes in each process; use DDP, or another credit"
        )


class SignalReader:
    """Computes what one credit strategy needs, and nothing else.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        credit: The strategy. Its attributes `layers`, `at` and `target`, where it has them, say which layers are read,
            where the flow ends, and what counts as the answer.
        temperature: What logits are divided by: the policy as it samples.
        rows_per_forward: Sequences in one forward.
        every_rank_alike: Run the same number of whole forwards whatever was sampled, for a sharded model.
        template_options: What the trainer hands to the chat template.

    Raises:
        InputError: A need that does not exist, or one that cannot be met on a sharded model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        credit: Credit,
        *,
        temperature: float = 1.0,
        rows_per_forward: int = 8,
        every_rank_alike: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        if every_rank_alike:
            refuse_sharded(credit)
        self.needs = needs_of(credit)
        self._model = model
        self._tokenizer = tokenizer
        self._layers = getattr(credit, "layers", None)
        self._at = getattr(credit, "at", "token")
        self._target = getattr(credit, "target", "answer")
        self._temperature = temperature
        self._size = rows_per_forward
        self._alike = every_rank_alike
        self._template_options = template_options

    @cached_property
    def _middle(self) -> AttentionReader:
        return AttentionReader(self._model, self._layers)

    @cached_property
    def _spread(self) -> AttentionReader:
        return spread_reader(self._model, self._layers)

    @cached_property
    def _logits(self) -> LogitReader:
        return LogitReader(self._model)

    def read(self, sampled: Sampled, seeds_B: tuple[int, ...]) -> tuple[dict[str, Any], Counter[str]]:
        """Fields of `Signals`, and why responses have no answer or no flow, by named reason.

        Raises:
            InputError: A layer that the model does not have, or a gold answer that nobody gave.
            CaptureError: The model's attention or logits cannot be read.
        """
        fields: dict[str, Any] = {}
        misses: Counter[str] = Counter()
        if self.needs & _OF_ANSWER:
            answers = locate_answers(self._tokenizer, sampled, self._target)
            fields |= {"answer_BR": answers.answer_BR, "reasoning_BR": answers.reasoning_BR}
            misses = answers.misses
            fields |= self._of_answer(sampled, answers, seeds_B)
            if "traced_B" in fields:
                misses["no_flow"] = int(answers.answer_BR.any(-1).sum() - fields["traced_B"].sum())
        if "attention" in self.needs:
            fields |= self._of_rows(sampled, self._middle, mean_scores, ("received_BR", "row_entropy_BR"))
        if "heads" in self.needs:
            fields |= self._of_rows(sampled, self._spread, head_scores, ("local_distance_BR", "future_attention_BR"))
        if self.needs & {"logits", "gain", "gold"}:
            fields |= self._of_logits(sampled)
        return fields, +misses

    def _of_answer(self, sampled: Sampled, answers: Answers, seeds_B: tuple[int, ...]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if "flow" in self.needs:
            fields["throughput_BR"], fields["traced_B"] = read_flow(
                self._middle,
                sampled,
                answers.answer_BR,
                at=self._at,
                rows_per_forward=self._size,
                every_rank_alike=self._alike,
            )
        if "gradient" in self.needs:
            fields["saliency_BR"], fields["saliency_before_BR"] = read_saliency(
                self._logits, sampled, answers.answer_BR, rows_per_forward=self._size
            )
        if "perturbation" in self.needs:
            fields["influence_BR"] = read_influence(
                self._logits, sampled, answers.answer_BR, answers.reasoning_BR, seeds_B, rows_per_forward=self._size
            )
        return fields

    def _of_rows(
        self, sampled: Sampled, reader: AttentionReader, scores: Any, names: tuple[str, str]
    ) -> dict[str, Any]:
        """Scores of attention, slice by slice, padded back to the batch's width."""
        found = torch.zeros(len(names), *sampled.response_ids_BR.shape, device=sampled.device)
        for rows in sampled.slices(self._size):
            few = sampled.rows(rows)
            layers = few.attend(reader, stop_early=not self._alike)
            for whole_BR, part_BR in zip(found, scores(layers, few), strict=True):
                whole_BR[rows] = part_BR
        return dict(zip(names, found, strict=True))

    def _of_logits(self, sampled: Sampled) -> dict[str, Any]:
        options: dict[str, Any] = {"temperature": self._temperature, "rows_per_forward": self._size}
        fields: dict[str, Any] = {}
        if self.needs & {"logits", "gain"}:
            fields["entropy_BR"], fields["log_prob_BR"] = token_logits(self._logits, sampled, **options)
        if "gain" in self.needs:
            fields["gain_BR"] = read_gain(
                self._logits,
                self._tokenizer,
                sampled,
                fields["log_prob_BR"],
                template_options=self._template_options,
                **options,
            )
        if "gold" in self.needs:
            fields["score_gold"] = PrefixScorer(self._logits, self._tokenizer, sampled, rows_per_forward=self._size)
        return fields
