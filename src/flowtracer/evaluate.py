"""How good a model is: responses to problems, judged by their task, with intervals.

1. `respond` samples one response a problem, greedily unless a temperature is given, prompts of like length together.
2. `judge` asks the task for each response's verdict.
3. `accuracy` is a share with Wilson's interval; `gain` compares two models on the same problems, by the paired
   bootstrap, as most of the spread between problems is common to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.intervals import Interval, paired_difference, share_interval
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
        seed: Of sampling; the same seed and batch size give the same responses.

    Raises:
        InputError: The tokenizer has no chat template.
    """
    import torch

    if not getattr(tokenizer, "chat_template", None):
        raise InputError("expected a tokenizer with a chat template, got none; evaluate an instruction-tuned model")
    prompts = [
        tokenizer.apply_chat_template(list(problem.prompt), tokenize=False, add_generation_prompt=True)
        for problem in problems
    ]
    # Longest first: if memory runs out, it does so at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
    responses = [""] * len(prompts)
    training = model.training
    model.eval()
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            inputs = tokenizer(
                [prompts[row] for row in rows],
                return_tensors="pt",
                padding=True,
                padding_side="left",
                add_special_tokens=False,
            ).to(model.device)
            ids = model.generate(**inputs, max_new_tokens=max_new_tokens, pad_token_id=tokenizer.pad_token_id, **how)
            texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                responses[row] = text
    model.train(training)
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
