"""What single tokens or words do to the answer as it stands: each is hidden in turn, and log p(answer) is measured.

One row of a batch for each: its columns of the attention mask are 0, so no later token attends to them in any layer or
head, and all keep their positions. What a hidden token itself predicts is left as it was, and so is all that stands
before it: rows begin at the first token that their batch hides, on keys and values of the text as it is. Nothing is
generated, so a dozen cost less than a dozen forwards, and all tokens of a response about half as many as it has.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from flowtracer.errors import InputError
from flowtracer.model.forward import accepted, cache_argument, windowed
from flowtracer.shapes import Float, Int
from flowtracer.text.span import Span
from flowtracer.trace.trace import Trace

_SLACK = 1.25
"""Tokens run together while the first row is at most so much longer than the last has to be."""


def with_hub_effects(model: Any, trace: Trace, *, hubs: int = 12, max_tokens: int = 4096) -> Trace:
    """The trace, with the effects of its largest hubs, each word as a whole."""
    found = trace.hubs(hubs)
    changes = hidden_effects(model, trace, [hub.unit.span for hub in found], max_tokens=max_tokens)
    measured = {hub.token: change for hub, change in zip(found, changes, strict=True)}
    return replace(trace, effects={**trace.effects, **measured})


def with_all_effects(model: Any, trace: Trace, *, max_tokens: int = 4096) -> Trace:
    """The trace, with the effects of all tokens of the response that stand before the answer, each by itself."""
    tokens = range(max(trace.response.start, 1), trace.answer.start)
    changes = hidden_effects(model, trace, tokens, max_tokens=max_tokens)
    return replace(trace, effects={**trace.effects, **dict(zip(tokens, changes, strict=True))})


@torch.inference_mode()
def hidden_effects(model: Any, trace: Trace, hidden: Sequence[int | Span], *, max_tokens: int = 4096) -> list[float]:
    """Change of log p(answer), in nats, when each of `hidden` alone is hidden from all later tokens.

    Args:
        model: The model that the trace is of, in evaluation mode.
        trace: Its answer is scored where it stands.
        hidden: Tokens, or runs of them, before the answer; the first excepted, which nothing could stand in for.
        max_tokens: Tokens of one forward; a longer trace runs alone.

    Raises:
        InputError: A trace over images.
    """
    text = _Text(model, trace)
    spans = [Span(start=place, stop=place + 1) if isinstance(place, int) else place for place in hidden]
    found: dict[Span, float] = {}
    for group in _groups(sorted(set(spans), key=_start), text.stop, max_tokens, anywhere=text.cache is not None):
        hidden_BA = text.log_probs(group)
        stops_B1 = torch.tensor([[span.stop] for span in group], device=hidden_BA.device)
        changes_BA = (hidden_BA - text.reference_A) * (text.predicting_A >= stops_B1)
        found |= dict(zip(group, changes_BA.sum(-1).tolist(), strict=True))
    return [found[span] for span in spans]


def _refuse_images(trace: Trace) -> None:
    """Raise where a trace is over images: a model is run anew on its tokens alone.

    Raises:
        InputError: The trace has no pixels.
    """
    if trace.images:
        raise InputError(
            "expected a trace of text, got one over images: what hiding a token does is measured on tokens alone, "
            "without pixels; leave it out for this trace"
        )


def _start(span: Span) -> int:
    return span.start


def _groups(spans: list[Span], stop: int, max_tokens: int, *, anywhere: bool) -> list[list[Span]]:
    """What runs together, in order: each group from its first token, if rows may begin anywhere, to the text's end."""
    groups: list[list[Span]] = []
    for span in spans:
        group = groups[-1] if groups else []
        width = stop - group[0].start if group and anywhere else stop
        alike = not anywhere or width <= _SLACK * (stop - span.start)
        if group and alike and (len(group) + 1) * width <= max_tokens:
            group.append(span)
        else:
            groups.append([span])
    return groups


class _Text:
    """A traced text up to its answer, as the model reads it with nothing hidden."""

    def __init__(self, model: Any, trace: Trace) -> None:
        _refuse_images(trace)
        self._model = model
        self.stop = trace.answer.stop
        self._ids_1T = torch.from_numpy(trace.token_ids[: self.stop]).to(model.device)[None]
        self._answer_A: Int[Tensor, " A"] = self._ids_1T[0, trace.answer.start :]
        self.predicting_A = torch.arange(trace.answer.start - 1, self.stop - 1, device=model.device)
        # Keys and values of a window cannot be cut back to where a row begins.
        caches = accepted(model.forward, {"use_cache": True, cache_argument(model): DynamicCache(config=model.config)})
        self.cache: Any = None if windowed(model) or len(caches) < 2 else caches[cache_argument(model)]
        self.reference_A: Float[Tensor, " A"] = self._run(0, torch.ones_like(self._ids_1T), self.cache)[0]

    def log_probs(self, hidden: Sequence[Span]) -> Float[Tensor, "B A"]:
        """Log-probabilities of the answer's tokens; each row hides one run of tokens from those after it."""
        mask_BT = torch.ones(len(hidden), self.stop, dtype=torch.long, device=self._ids_1T.device)
        for row, span in enumerate(hidden):
            mask_BT[row, span.start : span.stop] = 0
        if self.cache is None:
            return self._run(0, mask_BT, None)
        start = min(map(_start, hidden))
        cache = copy.deepcopy(self.cache)
        cache.crop(start - self.stop)  # by how many tokens, as every release understands it
        cache.batch_repeat_interleave(len(hidden))
        return self._run(start, mask_BT, cache)

    def _run(self, start: int, mask_BT: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B A"]:
        """The model from token `start` on, behind what the cache holds."""
        kept = len(self._answer_A) + 1
        cached = {"use_cache": False} if cache is None else {"use_cache": True, cache_argument(self._model): cache}
        logits_BAV = self._model(
            input_ids=self._ids_1T[:, start:].expand(len(mask_BT), -1),
            attention_mask=mask_BT,
            position_ids=torch.arange(start, self.stop, device=mask_BT.device)[None],
            **accepted(self._model.forward, {**cached, "logits_to_keep": kept}),
        ).logits[:, -kept:-1]
        index_BA1 = self._answer_A[None, :, None].expand(len(mask_BT), -1, -1)
        return logits_BAV.float().log_softmax(-1).gather(-1, index_BA1)[..., 0]
