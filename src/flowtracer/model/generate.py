"""Responses of a model, each drawn with random numbers of its own.

Prompts of like length run together. A response's numbers are made from the seed and its name, and its t-th token is
taken where the t-th of them falls in the cumulative distribution. So a response does not depend on its batch: any part
of a run can be made again alone. Temperature 0 is greedy decoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.text.encoding import encode_prompt
from flowtracer.text.messages import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How responses are drawn."""

    temperature: float = 0.0
    """0 for greedy decoding."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability."""
    max_new_tokens: int = 256
    """Longest response in tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"expected a temperature of 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"expected 0 < top_p <= 1, got {self.top_p}")
        if self.max_new_tokens < 1:
            raise InputError(f"expected max_new_tokens >= 1, got {self.max_new_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered."""

    text: str
    tokens: int | None
    """How many were generated, the end of the turn included, where known."""
    finished: bool
    """It ended by itself."""
    ids: tuple[int, ...] = ()
    """The tokens themselves, the end of the turn included, where known: text encoded again may be cut elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    row: int
    """Place among what was asked for."""
    ids: list[int]
    room: int
    """Longest response in tokens."""
    name: str


def draw_name(problem: str, number: int) -> str:
    """What names the `number`-th response to a problem, as `sample` asks for it."""
    return f"{problem} {number}"


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str | Messages],
    names: Sequence[str],
    *,
    sampling: Sampling,
    batch_size: int,
) -> Iterator[dict[int, Reply]]:
    """Responses to prompts, batch by batch, by their places.

    Args:
        model: A causal language model; its mode and the global random state are left as they were.
        tokenizer: Its tokenizer.
        prompts: Chat messages, or text that is used as it is.
        names: With the seed, what a response is drawn from: equal names give equal random numbers.
        sampling: How responses are drawn.
        batch_size: Prompts at a time.

    A prompt that leaves fewer than `max_new_tokens` of the model's positions gets as many tokens as there is room for.

    Raises:
        InputError: Messages, and a tokenizer without a chat template; or no token to end or to pad with.
    """
    from flowtracer.model.forward import context_length

    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if pad is None:
        raise InputError("expected a tokenizer with a token to pad with or to end with, got neither; set pad_token")
    positions = context_length(model) or float("inf")
    waiting = []
    for row, (ids, name) in enumerate(zip(encoded, names, strict=True)):
        room = int(min(sampling.max_new_tokens, positions - len(ids)))
        if room < 1:
            yield {row: Reply(text="", tokens=0, finished=False)}
        else:
            waiting.append(_Prompt(row=row, ids=ids, room=room, name=name))
    # Longest first: if memory runs out, it does so at once. Those without full room have batches of their own.
    waiting.sort(key=lambda prompt: (prompt.room, -len(prompt.ids)))
    while waiting:
        batch = [prompt for prompt in waiting[:batch_size] if prompt.room == waiting[0].room]
        waiting = waiting[len(batch) :]
        yield dict(zip([p.row for p in batch], _generate(model, tokenizer, batch, sampling, pad), strict=True))


def _generate(model: Any, tokenizer: Any, batch: Sequence[_Prompt], sampling: Sampling, pad: int) -> list[Reply]:
    import torch

    from flowtracer.model.forward import evaluating

    longest = max(len(prompt.ids) for prompt in batch)
    shape = (len(batch), longest)
    ids_BT, mask_BT = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    for row, prompt in enumerate(batch):
        ids_BT[row, longest - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask_BT[row, longest - len(prompt.ids) :] = 1
    processors = [] if sampling.temperature == 0 else [_ByOwnNumbers(batch, longest, sampling, model.device)]
    with evaluating(model), torch.inference_mode():
        generated_BT = model.generate(
            input_ids=ids_BT.to(model.device),
            attention_mask=mask_BT.to(model.device),
            max_new_tokens=batch[0].room,
            pad_token_id=pad,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=processors,
        )[:, longest:]
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    rows = [_until(ids, ends) for ids in generated_BT.tolist()]
    texts = tokenizer.batch_decode([ids for ids, _ in rows], skip_special_tokens=True)
    return [
        Reply(text=text, tokens=len(ids), finished=finished, ids=tuple(ids))
        for text, (ids, finished) in zip(texts, rows, strict=True)
    ]


def _until(ids: list[int], ends: set[int]) -> tuple[list[int], bool]:
    """The tokens up to the first that ends a turn, and whether there is one."""
    last = next((place for place, token in enumerate(ids) if token in ends), None)
    return (ids, False) if last is None else (ids[: last + 1], True)


class _ByOwnNumbers:
    """A logits processor that leaves one token a row, drawn with the row's own random numbers."""

    def __init__(self, batch: Sequence[_Prompt], longest: int, sampling: Sampling, device: Any) -> None:
        import torch

        uniform_BR = np.stack([_numbers(prompt.name, sampling.seed, prompt.room) for prompt in batch])
        self._precision = torch.float32 if device.type == "mps" else torch.float64  # which has no float64
        self._uniform_BR = torch.from_numpy(uniform_BR).to(device, self._precision)
        self._longest = longest
        self._sampling = sampling

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        probs_BV = torch.softmax(scores.to(self._precision) / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            ranked_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
            before_BV = ranked_BV.cumsum(-1) - ranked_BV
            probs_BV = torch.zeros_like(probs_BV).scatter(
                -1, order_BV, ranked_BV.masked_fill(before_BV >= self._sampling.top_p, 0)
            )
        reached_BV = probs_BV.cumsum(-1)
        uniform_B1 = self._uniform_BR[:, input_ids.shape[1] - self._longest, None]
        chosen_B1 = torch.searchsorted(reached_BV, uniform_B1 * reached_BV[:, -1:], right=True)
        chosen_B1 = chosen_B1.clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(-1, chosen_B1, 0)


def _numbers(name: str, seed: int, n: int) -> Any:
    """Uniform numbers in [0, 1); fewer of one name are the first of more."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).random(n)
