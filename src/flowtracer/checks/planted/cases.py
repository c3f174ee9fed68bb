"""Responses whose truth is known, as tokens, and whether a model concludes them rightly.

A task writes a response and says which of its steps the answer depends on. Only problems with needed steps and
distractors count, and only those that the model concludes rightly: given all that stands before, its most likely token
at each place of the answer is the answer's own. What a model cannot do, its attention need not show.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flowtracer.errors import InputError
from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, ndarray
from flowtracer.signals.sampled import Sampled
from flowtracer.tasks import Problem, WorkedTask
from flowtracer.text.answer import Answer, locate_answer
from flowtracer.text.encoding import encode_rollout
from flowtracer.text.span import CharSpan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One worked response."""

    problem: Problem
    text: str
    prompt_ids: list[int]
    response_ids: list[int]
    answer_R: Bool[ndarray, " R"]
    """Tokens of the answer."""
    steps_SR: Bool[ndarray, "S R"]
    """Tokens of each labelled step."""
    needed_S: Bool[ndarray, " S"]
    """Steps that the answer depends on; the others are distractors or dead ends."""
    seed: int
    """Of random draws; the problem's own."""


def work_case(tokenizer: Any, task: WorkedTask, problem: Problem, *, seed: int = 0) -> Case | None:
    """A worked response as tokens; None where the task cannot write one, or one without both kinds of steps.

    Raises:
        InputError: A worked response whose answer cannot be located.
    """
    own = zlib.crc32(problem.id.encode(), seed & 0xFFFFFFFF)
    try:
        worked = task.work(problem, seed=own)
    except InputError:  # a problem that the task's own way of working does not reach
        return None
    needed_S = np.array([step.needed for step in worked.steps], dtype=np.bool_)
    if not needed_S.any() or needed_S.all():
        return None
    found = locate_answer(worked.text)
    if not isinstance(found, Answer):
        raise InputError(f"{problem.id}: expected a worked response with an answer, got {found.message}")
    encoded = encode_rollout(tokenizer, problem.prompt, worked.text)
    first = encoded.first_response_token
    offsets = encoded.offsets[first:] - encoded.response_start
    ids = [int(token) for token in encoded.token_ids]
    return Case(
        problem=problem,
        text=worked.text,
        prompt_ids=ids[:first],
        response_ids=ids[first:],
        answer_R=_overlap(offsets, found.span),
        steps_SR=np.stack([_overlap(offsets, step.span) for step in worked.steps]),
        needed_S=needed_S,
        seed=own,
    )


def concluded(reader: LogitReader, cases: Sequence[Case], *, rows_per_forward: int = 16) -> list[Case]:
    """The cases whose answer the model gives, each of its tokens behind all before it."""
    if not cases:
        return []
    sampled = Sampled.padded([(case.prompt_ids, case.response_ids) for case in cases], reader.model.device)
    right: list[Case] = []
    for rows in sampled.slices(rows_per_forward):
        few = sampled.few(rows)
        target_BT = torch.zeros(few.ids_BT.shape, dtype=torch.bool, device=sampled.device)
        for place, row in enumerate(rows.tolist()):
            answer_R = torch.from_numpy(cases[row].answer_R)
            target_BT[place, few.first : few.first + len(answer_R)] = answer_R.to(sampled.device)
        with evaluating(reader.model), torch.inference_mode():
            hidden_ND = reader.hidden(few.inputs())[target_BT.roll(-1, 1)]
            likeliest_N = reader.logits(hidden_ND).argmax(-1)
        missed_BT = torch.zeros_like(target_BT).masked_scatter(target_BT, likeliest_N != few.ids_BT[target_BT])
        right += [
            cases[row] for row, missed in zip(rows.tolist(), missed_BT.any(-1).tolist(), strict=True) if not missed
        ]
    return right


def _overlap(offsets: ndarray, span: CharSpan) -> Bool[ndarray, " R"]:
    return (offsets[:, 0] < span.stop) & (offsets[:, 1] > span.start)
