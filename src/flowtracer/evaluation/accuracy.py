"""How good a model is: responses to problems, judged by their task, with intervals.

1. `sample` draws responses, prompts of like length together. Each has random numbers of its own, made from the seed
   and its name, and takes its t-th token where the t-th of them falls in the cumulative distribution. So a response
   does not depend on its batch: any part of a run can be made again alone. Temperature 0 is greedy decoding.
2. `respond` gives one response a problem, and `judge` asks the task for each response's verdict.
3. `accuracy` is a share with Wilson's interval; `gain` compares two models on the same problems, by the paired
   bootstrap, as most of the spread between problems is common to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.intervals import Interval, paired_difference, share_interval
from flowtracer.model.generate import Sampling, draw_name, sample
from flowtracer.tasks import Problem, Task, Verdict


def respond(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 256,
    batch_size: int = 128,
    seed: int = 0,
) -> list[str]:
    """One response to each problem, in their order.

    Args:
        model: A causal language model; its mode and the global random state are left as they were.
        tokenizer: Its tokenizer, with a chat template.
        problems: What to answer.
        temperature: 0 for greedy decoding.
        max_new_tokens: Longest response in tokens.
        batch_size: Prompts at a time.
        seed: Of sampling. A problem that stands there twice is sampled twice.

    Raises:
        InputError: The tokenizer has no chat template.
    """
    seen: Counter[str] = Counter()
    names = []
    for problem in problems:
        names.append(draw_name(problem.id, seen[problem.id]))
        seen[problem.id] += 1
    responses = [""] * len(problems)
    how = Sampling(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
    prompts = [problem.prompt for problem in problems]
    for batch in sample(model, tokenizer, prompts, names, sampling=how, batch_size=batch_size):
        for row, reply in batch.items():
            responses[row] = reply.text
    return responses


def judge(task: Task, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
    """The task's verdict on each response."""
    return [task.verify(problem, response) for problem, response in zip(problems, responses, strict=True)]


def accuracy(correct: Sequence[bool]) -> Interval:
    """Share of right answers."""
    if not len(correct):
        raise InputError("expected at least one judged response, got none")
    return share_interval(correct)


def gain(before: Sequence[bool], after: Sequence[bool]) -> Interval:
    """Difference of two accuracies on the same problems, paired."""
    if len(before) != len(after) or not len(before):
        raise InputError(f"expected verdicts on the same problems, got {len(before)} and {len(after)}")
    return paired_difference(np.asarray(after, dtype=float), np.asarray(before, dtype=float))
