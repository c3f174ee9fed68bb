"""Traces of a few fixed prompts as training goes, with the advantages that each token was trained on.

At the first generation from every n-th optimiser step on, with the policy that generates:

1. Of a fixed prompt that is in the batch, every response that this process trains on is traced on the very tokens that
   were sampled, with its advantage, each token's factor, and their product as it entered the loss.
2. A fixed prompt that is not in the batch is answered greedily. Nothing was learned from that answer and it carries no
   advantage, but it can be compared from step to step; and greedy decoding draws no random number, so training goes on
   as if nobody had looked. Attention is read off that generation where it can be.
3. A data set is larger than a batch, so fixed prompts are rarely trained on. The responses to the first prompt of the
   batch are kept as well: every kept step shows what entered the loss.

    traces/step-000010/prompt-00-r00.safetensors    fixed prompt 0, its response 0
    traces/step-000010/batch-r00.safetensors        the first prompt of the batch
    traces/step-000010/skipped.jsonl                responses that cannot be traced, and why

A step's folder appears when it is complete. A run that goes on from a checkpoint looks at what the folder holds and
keeps the steps that it would have kept without the break.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.credit import token_factors
from flowtracer.errors import TraceError
from flowtracer.model.capture import AttentionReader
from flowtracer.model.forward import evaluating
from flowtracer.shapes import Bool, Float, Int
from flowtracer.signals.generated import GENERATION_BYTES, GenerationReader
from flowtracer.signals.sampled import Sampled
from flowtracer.trace.trace import Rollout, Skipped, Trace, TrainedOn
from flowtracer.tracing.tracer import Tracer

Prompt = Any
"""As the data set has it: text, or chat messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedBatch:
    """What one process trains on."""

    prompts: Sequence[Prompt]
    prompt_ids_BP: Int[Tensor, "B L"]
    prompt_mask_BP: Int[Tensor, "B L"]
    response_ids_BR: Int[Tensor, "B R"]
    response_mask_BR: Int[Tensor, "B R"]
    counted_BR: Bool[Tensor, "B R"]
    """Tokens that the loss counts."""
    rewards_B: Float[Tensor, " B"]
    advantages_B: Float[Tensor, " B"]
    """Each response's own."""
    advantages_BR: Float[Tensor, "B R"]
    """Each token's, as they enter the loss."""


class TraceKeeper:
    """Keeps traces of fixed prompts in a folder.

    Args:
        tracer: Traces with the model that is being trained.
        folder: For `step-000000` and so on.
        prompts: The fixed prompts.
        encode: Token ids of prompts, as the trainer itself makes them.
        every: Optimiser steps between two looks.
        max_new_tokens: Longest greedy answer.
        generation_bytes: Queries and keys that may be kept while the answers are generated.
    """

    def __init__(
        self,
        tracer: Tracer,
        folder: Path,
        prompts: Sequence[Prompt],
        encode: Callable[[list[Prompt]], list[list[int]]],
        *,
        every: int,
        max_new_tokens: int,
        generation_bytes: int = GENERATION_BYTES,
    ) -> None:
        self._tracer = tracer
        self._folder = folder
        self._prompts = list(prompts)
        self._encode = encode
        self._every = every
        self._max_new_tokens = max_new_tokens
        self._last: int | None = None
        # Generation shows what the model attends with, and nothing that another capacity asks for.
        self._attention = tracer.reader if isinstance(tracer.reader, AttentionReader) else None
        readers = [] if self._attention is None else [self._attention]
        self._generation = GenerationReader(tracer.model, readers, generation_bytes)
        self.own_forward = 0.0
        """Share of the latest step's traces that took a forward of their own."""

    def due(self, step: int) -> bool:
        """Whether no look has been taken since the last multiple of `every`."""
        if self._last is None:
            earlier = [int(path.name.removeprefix("step-")) for path in self._folder.glob("step-[0-9]*[0-9]")]
            # A run that starts anew owes nothing to what an older one left in its folder.
            self._last = max((kept for kept in earlier if step > 0 and kept <= step), default=-1)
        return step // self._every > self._last // self._every

    def keep(self, step: int, batch: TrainedBatch) -> dict[str, Trace]:
        """Trace and write one step; the traces by name."""
        sampled, trained = self._trained(step, batch)
        seen = {rollout.id.partition("-r")[0] for rollout in sampled}
        answered = self._answered(step, [n for n in range(len(self._prompts)) if _name(n) not in seen])
        unread = sampled + [rollout for rollout, layers in answered if layers is None]
        read = [(rollout, layers) for rollout, layers in answered if layers is not None]
        rollouts = unread + [rollout for rollout, _ in read]
        results = self._tracer.trace_batch(unread)
        results += [self._tracer.trace_attention(rollout, layers) for rollout, layers in read]
        traces, skipped = {}, []
        for rollout, result in zip(rollouts, results, strict=True):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                traces[rollout.id] = replace(result, trained=trained.get(rollout.id))
        self._write(step, traces, skipped)
        self.own_forward = sum(rollout.id in traces for rollout in unread) / max(len(traces), 1)
        self._last = step
        return traces

    def _trained(self, step: int, batch: TrainedBatch) -> tuple[list[Rollout], dict[str, TrainedOn]]:
        """Responses of the batch to fixed prompts, and to its first prompt."""
        rollouts: list[Rollout] = []
        trained: dict[str, TrainedOn] = {}
        counts: dict[str, int] = {}
        for row, prompt in enumerate(batch.prompts):
            if prompt in self._prompts:
                number: int | None = self._prompts.index(prompt)
            elif prompt == batch.prompts[0]:
                number = None
            else:
                continue
            group = _name(number)
            index = counts[group] = counts.get(group, -1) + 1
            prompt_ids = batch.prompt_ids_BP[row][batch.prompt_mask_BP[row].bool()].tolist()
            response_ids = batch.response_ids_BR[row][batch.response_mask_BR[row].bool()].tolist()
            rollout = _rollout(f"{group}-r{index:02d}", step, number, prompt_ids, response_ids)
            metadata = {**rollout.metadata, "reward": float(batch.rewards_B[row])}
            rollouts.append(replace(rollout, metadata=metadata))
            trained[rollout.id] = _trained_on(step, batch, row, len(prompt_ids))
        return rollouts, trained

    def _answered(self, step: int, numbers: Sequence[int]) -> list[tuple[Rollout, list[LayerAttention] | None]]:
        """Greedy answers to fixed prompts, each with what the model attended with where that could be kept."""
        if not numbers:
            return []
        prompts = self._encode([self._prompts[n] for n in numbers])
        with self._generation.hearing() as heard:
            sampled = self._generate(prompts)
        attention = None if heard is None else self._generation.attention(sampled, heard)
        rollouts = [
            _rollout(f"{_name(n)}-r00", step, n, ids, answer[mask].tolist())
            for n, ids, answer, mask in zip(
                numbers, prompts, sampled.response_ids_BR, sampled.response_mask_BR.bool(), strict=True
            )
        ]
        return [(rollout, self._layers(rollout, sampled, row, attention)) for row, rollout in enumerate(rollouts)]

    def _generate(self, prompts: Sequence[list[int]]) -> Sampled:
        """Greedy answers up to their end-of-text tokens, which belong to them as in training."""
        tokenizer, model = self._tracer.tokenizer, self._tracer.model
        asked = Sampled.padded([(ids, []) for ids in prompts], model.device, pad=tokenizer.pad_token_id)
        with evaluating(model), torch.no_grad():
            whole_BT = model.generate(
                input_ids=asked.prompt_ids_BP,
                attention_mask=asked.prompt_mask_BP,
                max_new_tokens=self._max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        response_BR = whole_BT[:, asked.width :]
        ends_BR = response_BR == tokenizer.eos_token_id
        inside_BR = (ends_BR.cumsum(-1) - ends_BR.long() == 0).long()
        return replace(asked, response_ids_BR=response_BR, response_mask_BR=inside_BR)

    def _layers(
        self, rollout: Rollout, sampled: Sampled, row: int, attention: Mapping[int, LayerAttention] | None
    ) -> list[LayerAttention] | None:
        """What the model attended with over one of the answers, as far as a trace needs it."""
        if attention is None or self._attention is None:
            return None
        try:
            needed = self._tracer.needed_tokens(rollout)
        except TraceError:  # named when it is traced
            return None
        layers = self._attention.choose(attention)
        stop = needed - int(sampled.prompt_mask_BP[row].sum())
        if sampled.prompt_ids_BP.shape[1] + stop > layers[0].query_BHTD.shape[2]:
            return None
        return sampled.few(torch.tensor([row]), stop).part(layers)

    def _write(self, step: int, traces: Mapping[str, Trace], skipped: Sequence[Skipped]) -> None:
        """Write a step's folder under another name first, so that a kill leaves no half folder behind."""
        folder = self._folder / f"step-{step:06d}"
        partial = folder.with_suffix(".partial")
        for stale in (partial, folder):
            if stale.exists():
                shutil.rmtree(stale)
        partial.mkdir(parents=True)
        for name, trace in traces.items():
            trace.save(partial / f"{name}.safetensors")
        if skipped:
            lines = "".join(json.dumps(asdict(item)) + "\n" for item in skipped)
            (partial / "skipped.jsonl").write_text(lines, encoding="utf-8")
        partial.rename(folder)


def _name(number: int | None) -> str:
    return "batch" if number is None else f"prompt-{number:02d}"


def _rollout(name: str, step: int, number: int | None, prompt_ids: list[int], response_ids: list[int]) -> Rollout:
    metadata = {"step": step, "prompt": number}
    return Rollout(prompt="", response="", id=name, metadata=metadata, token_ids=(prompt_ids, response_ids))


def _trained_on(step: int, batch: TrainedBatch, row: int, prompt_length: int) -> TrainedOn:
    """Per-token numbers in the order of the sequence: nothing on the prompt, nor where the loss counts nothing."""
    inside = batch.response_mask_BR[row].bool()
    counted = batch.counted_BR[row]
    advantage = batch.advantages_B[row]
    token_advantages = batch.advantages_BR[row].masked_fill(~counted, 0)
    factors = token_factors(token_advantages[None], advantage[None])[0] * counted

    def whole(values_R: Tensor) -> np.ndarray:
        return np.pad(values_R[inside].float().cpu().numpy(), (prompt_length, 0))

    return TrainedOn(
        step=step, advantage=float(advantage), factor=whole(factors), token_advantage=whole(token_advantages)
    )
