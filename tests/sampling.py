"""A batch of prompts and responses as a trainer samples them."""

from __future__ import annotations

from dataclasses import fields

import torch

from flowtracer.credit import CREDITS, NEEDS, make_credit, needs_of
from flowtracer.signals.sampled import Sampled
from tiny import tiny_tokenizer
from tolerances import assert_close

OF_ATTENTION = sorted(
    name
    for name in CREDITS
    if needs_of(make_credit(name)) & {"flow", "attention", "heads"} and "logits" not in needs_of(make_credit(name))
)
"""Strategies that read attention, and nothing else of the model."""

PROMPTS = ["what is 3 + 4?", "Ann has 3 apples and buys 4 more. How many?", "q"]
RESPONSES = ["3 + 4 = 7.\nA: 7<|end|>", "First add.\nThe answer is 7. Yes.<|end|>", "no idea<|end|>"]


def sampled_batch(rows=None, *, responses=RESPONSES, prompts=PROMPTS, golds=None) -> Sampled:
    """Prompts padded on the left, responses on the right; with `rows`, only those."""
    chosen = list(range(len(prompts))) if rows is None else rows
    tokenizer = tiny_tokenizer()
    asked = tokenizer([prompts[row] for row in chosen], padding=True, padding_side="left", return_tensors="pt")
    given = tokenizer([responses[row] for row in chosen], padding=True, padding_side="right", return_tensors="pt")
    return Sampled(
        prompt_ids_BP=asked["input_ids"],
        prompt_mask_BP=asked["attention_mask"],
        response_ids_BR=given["input_ids"],
        response_mask_BR=given["attention_mask"],
        prompts=[prompts[row] for row in chosen],
        golds=None if golds is None else [golds[row] for row in chosen],
    )


def sequence(sampled: Sampled, row: int) -> tuple[torch.Tensor, int]:
    """One row without padding, and where its response starts."""
    prompt = sampled.prompt_ids_BP[row][sampled.prompt_mask_BP[row].bool()]
    response = sampled.response_ids_BR[row][sampled.response_mask_BR[row].bool()]
    return torch.cat([prompt, response]), len(prompt)


def tensors_of(readings) -> dict[str, torch.Tensor]:
    """Every tensor that was read, by its own name."""
    needs = [need for need in (getattr(readings, name) for name in NEEDS) if need is not None]
    named = {field.name: getattr(need, field.name) for need in needs for field in fields(need)}
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}


def assert_same_readings(got, expected) -> None:
    """Signals, read in two ways."""
    others = tensors_of(expected)
    assert set(tensors_of(got)) == set(others)
    for name, value in tensors_of(got).items():
        if value.is_floating_point():
            assert_close(value, others[name], torch.float32)
        else:
            assert torch.equal(value, others[name]), name
