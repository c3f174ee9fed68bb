"""What a strategy reads of a pass, as one nested tensor beside verl's log-probabilities.

A sequence of `T` tokens has `T` rows of `C` channels, a field of a signal each. A response token's row stands one
before the token, where it is predicted, as its log-probability does: verl's own functions cut both.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import Field, fields, replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.credit.signals import AnswerSignals, AttentionSignals, FlowSignals, HeadSignals, Readings
from flowtracer.shapes import Float
from flowtracer.signals.sampled import Sampled

FIELD = "flowtracer_signals"
"""Its name among the outputs of a pass."""

CARRIED: dict[str, Any] = {
    "flow": FlowSignals,
    "answer": AnswerSignals,
    "attention": AttentionSignals,
    "heads": HeadSignals,
}
"""Needs that it can carry; what verl has itself (log-probabilities, entropies, groups) needs no carrying."""


def _channels(needs: AbstractSet[str]) -> Iterator[tuple[str, Field[Any]]]:
    return ((need, each) for need, signals in CARRIED.items() if need in needs for each in fields(signals))


def pack(readings: Readings, sampled: Sampled, needs: AbstractSet[str]) -> Tensor:
    """Signals of a batch as a nested tensor (B, T, C), each sequence as long as it is without padding."""
    shape = sampled.response_ids_BR.shape
    found = [getattr(getattr(readings, need), each.name).float() for need, each in _channels(needs)]
    # What is said of a whole response stands on each of its tokens.
    signals_BRC = torch.stack([x if x.ndim == 2 else x[:, None].expand(shape) for x in found], -1)
    rows = []
    prompts = sampled.prompt_mask_BP.sum(-1).tolist()
    for signals_RC, prompt, response in zip(signals_BRC, prompts, sampled.lengths(), strict=True):
        rows_TC = signals_RC.new_zeros(prompt + response, len(found))
        rows_TC[prompt - 1 : -1] = signals_RC[:response]
        rows.append(rows_TC)
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def unpack(signals_BRC: Float[Tensor, "B R C"], needs: AbstractSet[str]) -> Readings:
    """The signals again, cut to the responses and padded."""
    readings = Readings()
    values = dict(zip(((need, each.name) for need, each in _channels(needs)), signals_BRC.unbind(-1), strict=True))
    for need, signals in CARRIED.items():
        if need in needs:
            named = {each.name: _typed(each, values[need, each.name]) for each in fields(signals)}
            readings = replace(readings, **{need: signals(**named)})
    return readings


def _typed(field: Field[Any], values_BR: Float[Tensor, "B R"]) -> Tensor:
    """In the type and shape that the field was declared with."""
    values = values_BR if field.name.endswith("_BR") else values_BR[:, 0]
    return values > 0 if str(field.type).startswith("Bool") else values
