"""Strategies of credit against planted truth: what each makes of a right response, token by token.

1. Signals are computed as in training (`flowtracer.signals.reader`), once for all strategies that read the same.
2. A strategy is judged by its *score*, what it ranks tokens by before it cuts off the top share: a threshold would turn
   most pairs into ties, and where to cut is a choice of its own.
3. It is also judged by its *credit*, what enters the loss: the advantage of each token where the response's own is 1.
   A strategy without scores has only that. Signs count: a right response's credit ought to be least on distractors.
4. A strategy that compares a group gets one: the worked response and `group` - 1 that the model samples to the same
   problem, graded by the task. Where a strategy says that it has nothing to say (no right and wrong to compare), the
   problem counts for its credit, which is flat, and not for its score.
5. Strategies that ask for the gold answer get the problem's.

The first training step is shown (`trained` = 0) to strategies that change as training goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.checks.planted.cases import Case
from flowtracer.checks.planted.judge import Judgement, Key, judge
from flowtracer.credit import Credit, Signals, make_credit, of_text
from flowtracer.credit.signals import GroupSignals
from flowtracer.credit.together import read_together
from flowtracer.evaluation.accuracy import respond
from flowtracer.shapes import Float
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from flowtracer.tasks import Task

OF_BOXES = ("grail", "likelihood_gain")
"""Strategies that look for a box unless told otherwise; nothing here is boxed."""


def strategies_by_name(names: Iterable[str] | None = None) -> dict[str, Credit]:
    """Strategies with their default options, all unless named; those that ask for a box get the answer instead.

    Raises:
        InputError: A name that is none of a strategy.
    """
    chosen = of_text() if names is None else list(names)
    return {name: make_credit(name, {"target": "answer"} if name in OF_BOXES else None) for name in chosen}


class StrategyJudge:
    """Judges strategies on worked responses of one model.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer.
        task: What grades the responses that it samples.
        strategies: What is judged, by name.
        group: Responses to a problem, the worked one among them, for strategies that compare them.
        rows_per_forward: Sequences in one forward.
        seed: Of sampling.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        strategies: Mapping[str, Credit],
        *,
        group: int = 8,
        rows_per_forward: int = 16,
        seed: int = 0,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._task = task
        self._order = list(strategies)
        self._group = group
        self._seed = seed
        self._together = read_together(strategies)
        self._readers = [
            SignalReader(model, tokenizer, together, rows_per_forward=rows_per_forward) for together in self._together
        ]

    def judge(self, cases: Sequence[Case]) -> list[dict[Key, Judgement]]:
        """AUROC of every strategy on each case.

        Raises:
            CaptureError: The model's attention or logits cannot be read.
        """
        rows: list[dict[Key, Judgement]] = [{} for _ in cases]
        drawn: list[list[str]] | None = None
        for together, reader in zip(self._together, self._readers, strict=True):
            if "group" in together.reads.needs and drawn is None:
                drawn = self._sample(cases)
            others = drawn if drawn is not None and "group" in together.reads.needs else [[]] * len(cases)
            size = 1 + len(others[0])
            sampled, group = self._batch(cases, others)
            seeds_B = tuple(case.seed + number for case in cases for number in range(size))
            readings, _ = reader.read(sampled, seeds_B)
            signals = Signals(
                mask_BR=sampled.response_mask_BR.bool(),
                advantages_B=torch.where(group.rewards_B > 0, 1.0, -1.0),
                seeds_B=seeds_B,
                readings=replace(readings, group=group),
            )
            for name, scores_BR, speaks_B in together.scores(signals):
                spoken = [True] * len(cases) if speaks_B is None else speaks_B[::size].tolist()
                _judge_rows(rows, cases, scores_BR[::size], Key(name=name, by="score"), spoken)
            for name, credit_BR in zip(together.credits, together(signals), strict=True):
                _judge_rows(rows, cases, credit_BR[::size], Key(name=name, by="credit"), [True] * len(cases))
        place = {name: number for number, name in enumerate(self._order)}
        return [dict(sorted(row.items(), key=lambda item: place[item[0].name])) for row in rows]

    def _sample(self, cases: Sequence[Case]) -> list[list[str]]:
        """Other responses to each problem, by the model itself."""
        count = self._group - 1
        texts = respond(
            self._model,
            self._tokenizer,
            [case.problem for case in cases for _ in range(count)],
            temperature=1.0,
            # A response that goes on for twice as long as the right ones is wrong in any case.
            max_new_tokens=2 * max(len(case.response_ids) for case in cases),
            seed=self._seed + cases[0].seed,
        )
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def _batch(self, cases: Sequence[Case], others: Sequence[Sequence[str]]) -> tuple[Sampled, GroupSignals]:
        """The worked responses, each followed by its group, and what is known of them without a model."""
        rows: list[tuple[Sequence[int], Sequence[int]]] = []
        golds: list[str | None] = []
        rewards: list[float] = []
        for case, texts in zip(cases, others, strict=True):
            ids = [list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
            rows += [(case.prompt_ids, response) for response in (case.response_ids, *ids)]
            # Only the worked response is judged, so nothing that costs a forward is asked about the others.
            golds += [case.problem.gold, *(None for _ in texts)]
            rewards += [float(self._task.verify(case.problem, text).correct) for text in (case.text, *texts)]
        size = 1 + len(others[0])
        prompts = [case.problem.prompt for case in cases for _ in range(size)]
        sampled = Sampled.padded(rows, self._model.device, prompts=prompts, golds=golds)
        rewards_B = torch.tensor(rewards, device=sampled.device)
        group = GroupSignals(
            token_ids_BR=sampled.response_ids_BR,
            groups_B=torch.arange(len(rows), device=sampled.device) // size,
            rewards_B=rewards_B,
            baselines_B=rewards_B.view(-1, size).mean(1).repeat_interleave(size),
        )
        return sampled, group


def _judge_rows(
    rows: Sequence[dict[Key, Judgement]],
    cases: Sequence[Case],
    values_BR: Float[Tensor, "B R"],
    key: Key,
    spoken: Sequence[bool],
) -> None:
    """Judge each case by its row of values, where there is something said about it."""
    values = values_BR.double().cpu().numpy()
    for row, case, values_R, says in zip(rows, cases, values, spoken, strict=True):
        if says:
            row[key] = judge(values_R[: len(case.response_ids)], case)
