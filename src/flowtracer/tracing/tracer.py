"""The meeting point: model and text in, trace out.

1. Encode prompt and response with exact character offsets; locate the answer and the steps on the text.
2. Run the model on the tokens up to the answer's last, and only up to the last chosen layer.
3. Average attention over heads and layers a panel at a time, solve for reach and flow, and read off the edges and the
   heads that carry them.

Rollouts of similar length run together, padded on the right or packed into one row; the numbers are those of each one
alone. A rollout that cannot be traced becomes a `Skipped` with a named reason and never stops a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.attention.shared_prefix import attention_panels
from flowtracer.errors import CaptureError, InputError, TraceError
from flowtracer.flow import EdgeSummary, HeadSummary, PanelSource, Solution, summarise_edges, summarise_heads
from flowtracer.flow.solve import DENSE_BYTES, solve, within_budget
from flowtracer.model.capture import AttentionReader, Heads
from flowtracer.model.forward import context_length
from flowtracer.model.load import load_model, model_name
from flowtracer.shapes import ndarray
from flowtracer.text.answer import Answer, Miss, locate_answer
from flowtracer.text.encoding import EncodedText, Messages, encode_rollout, encode_sampled
from flowtracer.text.offsets import tokens_overlapping
from flowtracer.text.span import CharSpan, Span
from flowtracer.text.steps import split_steps
from flowtracer.trace.trace import Rollout, Skipped, Trace, no_heads


class Tracer:
    """Traces rollouts of one model.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer.
        layers: Decoder layers whose attention is averaged; None for the middle third, the paper's choice.
        heads: Heads of those layers, one list for all or one per layer; None for all.
        at: Where the flow ends: "token" for the answer's tokens, as in the paper, or "prediction" for the positions
            one before, whose hidden states predict them.
        question: Where the flow starts: the whole "prompt", as in the paper, or the last "user" message alone.
        max_edges: Largest edges that a trace keeps.
        heads_per_edge: For how many heads a trace says what they give to each kept edge; 0 to look at no head, which
            saves one pass over the attention.
        memory_budget: Bytes that the matrix of attention may take, half of T^2 float32 a rollout. A batch whose matrix
            is larger is *streamed*: every pass computes its panels again, which takes up to twice as long (1.2 times
            at 4,096 tokens on a CPU), and nothing of size T^2 is kept.

    Raises:
        CaptureError: The model's attention cannot be read.
        InputError: An option that does not exist.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | Heads | None = None,
        *,
        at: str = "token",
        question: str = "prompt",
        max_edges: int = 100_000,
        heads_per_edge: int = 3,
        memory_budget: int = DENSE_BYTES,
    ) -> None:
        for name, value, choices in (
            ("at", at, ("token", "prediction")),
            ("question", question, ("prompt", "user")),
        ):
            if value not in choices:
                raise InputError(f"expected {name} among {choices}, got {value!r}")
        self.reader = AttentionReader(model, layers, heads)
        self.model = model
        self.tokenizer = tokenizer
        self.at = at
        self.question = question
        self.max_edges = max_edges
        self.heads_per_edge = heads_per_edge
        self.memory_budget = memory_budget

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, device: str | None = None, dtype: str | None = None) -> Tracer:
        """Load model and tokenizer by hub id, folder, `.gguf` file, "nano" or "smollm2"; see `model/load.py`."""
        return cls(*load_model(name_or_path, device=device, dtype=dtype))

    def trace(self, prompt: str | Messages, response: str, answer: str | None = None) -> Trace:
        """Trace one rollout.

        Args:
            prompt: Text, used as it is, or chat messages, which the model's template turns into text.
            response: What the model answered.
            answer: The final answer as it stands in the response; None to locate it.

        Raises:
            TraceError: This rollout cannot be traced; `.reason` names why.
        """
        result = self.trace_batch([Rollout(prompt=prompt, response=response, answer=answer)])[0]
        if isinstance(result, Skipped):
            raise TraceError(result.reason, result.message)
        return result

    def trace_batch(
        self, rollouts: Iterable[Rollout], *, max_tokens: int = 4096, pack: bool = False
    ) -> list[Trace | Skipped]:
        """Trace many rollouts; results stand in their order. See `trace_stream` for the options."""
        results = dict(self.trace_stream(rollouts, max_tokens=max_tokens, pack=pack))
        return [results[index] for index in range(len(results))]

    def trace_stream(
        self, rollouts: Iterable[Rollout], *, max_tokens: int = 4096, pack: bool = False
    ) -> Iterator[tuple[int, Trace | Skipped]]:
        """Trace many rollouts and yield each with its index as soon as it is done, short ones first.

        Args:
            rollouts: All are encoded before the first is traced.
            max_tokens: Tokens of one forward, padding included; a longer rollout runs alone.
            pack: Put the rollouts of a forward into one row behind each other, instead of padding each to the longest.
                Wastes nothing on padding; needs a model that keeps packed sequences apart by their positions.
        """
        prepared: list[tuple[int, _Encoded]] = []
        for index, rollout in enumerate(rollouts):
            item = self._encode_or_skip(rollout)
            if isinstance(item, Skipped):
                yield index, item
            else:
                prepared.append((index, item))
        prepared.sort(key=lambda item: item[1].needed)
        for batch in _batches(prepared, max_tokens, pack):
            encoded = [item for _, item in batch]
            results = self._trace_packed(encoded) if pack else self._trace_padded(encoded)
            yield from zip([index for index, _ in batch], results, strict=True)

    def trace_attention(self, rollout: Rollout, layers: Sequence[LayerAttention]) -> Trace | Skipped:
        """Trace one rollout whose attention another pass over it has given; the model is not run.

        Args:
            rollout: The text of that pass, or its `token_ids`.
            layers: What the tracer's layers attended with, over a batch of one, without padding.

        Raises:
            InputError: The pass ended before the last token that the flow ends in; see `needed_tokens`.
        """
        item = self._encode_or_skip(rollout)
        if isinstance(item, Skipped):
            return item
        given = layers[0].query_BHTD.shape[2]
        if given < item.needed:
            raise InputError(f"expected attention of at least {item.needed} tokens, got {given}; use trace()")
        own = [layer.segment(0, 0, item.needed) for layer in layers]
        return self._solve(own, AttentionPanels(own), [item])[0]

    def needed_tokens(self, rollout: Rollout) -> int:
        """Tokens up to the last that the flow ends in: those that a trace runs the model over.

        Raises:
            TraceError: This rollout cannot be traced; `.reason` names why.
        """
        return self._encode(rollout).needed

    def _encode_or_skip(self, rollout: Rollout) -> _Encoded | Skipped:
        try:
            return self._encode(rollout)
        except TraceError as error:
            return Skipped(id=rollout.id, reason=error.reason, message=str(error))

    def _encode(self, rollout: Rollout) -> _Encoded:
        if rollout.token_ids is not None:
            text = encode_sampled(self.tokenizer, *rollout.token_ids)
        else:
            text = encode_rollout(self.tokenizer, rollout.prompt, rollout.response)
        shift = text.response_start
        found = locate_answer(text.text[shift : text.response_stop], rollout.answer)
        if isinstance(found, Miss):
            raise TraceError(found.value, found.message)
        answer = _token_span(text.offsets, CharSpan(start=found.span.start + shift, stop=found.span.stop + shift))
        sink = answer if self.at == "token" else Span(start=answer.start - 1, stop=answer.stop - 1)
        first = text.first_response_token
        question = Span(start=0, stop=first)
        if self.question == "user":
            question = self._user_span(rollout.prompt, text)
        if not len(question) or sink.start < 0:
            raise TraceError("empty_prompt", "expected a prompt of at least one token, got none; flow starts there")
        encoded = _Encoded(
            rollout=rollout,
            text=text,
            question=question,
            response=Span(start=first, stop=len(text.token_ids)),
            answer=answer,
            sink=sink,
            found=found,
        )
        limit = context_length(self.model)
        if limit is not None and encoded.needed > limit:
            raise TraceError(
                "too_long",
                f"expected at most {limit} tokens up to the answer, the model's context, got {encoded.needed}; "
                "shorten the prompt or the response",
            )
        return encoded

    def _user_span(self, prompt: str | Messages, text: EncodedText) -> Span:
        if isinstance(prompt, str):
            raise InputError('expected chat messages with question="user", got a prompt as text')
        content = next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "").strip()
        start = text.text.rfind(content, 0, text.response_start) if content else -1
        if start < 0:
            raise TraceError("no_user_message", "expected a user message within the prompt's text, got none")
        return _token_span(text.offsets, CharSpan(start=start, stop=start + len(content)))

    def _trace_padded(self, batch: list[_Encoded]) -> list[Trace | Skipped]:
        length = max(item.needed for item in batch)
        ids_BT = torch.zeros(len(batch), length, dtype=torch.long)
        valid_BT = torch.zeros(len(batch), length, dtype=torch.bool)
        for row, item in enumerate(batch):
            ids_BT[row, : item.needed] = torch.from_numpy(item.text.token_ids[: item.needed])
            valid_BT[row, : item.needed] = True
        device = self.model.device
        # Without padding no mask is needed, and the backend's fastest path is open.
        mask_BT = None if bool(valid_BT.all()) else valid_BT.long().to(device)
        layers = self.reader.read(ids_BT.to(device), mask_BT)
        return self._solve(layers, attention_panels(layers, ids_BT, valid_BT), batch)

    def _trace_packed(self, batch: list[_Encoded]) -> list[Trace | Skipped]:
        device = self.model.device
        ids_T = np.concatenate([item.text.token_ids[: item.needed] for item in batch])
        positions_T = np.concatenate([np.arange(item.needed) for item in batch])
        layers = self.reader.read(
            torch.from_numpy(ids_T)[None].to(device),
            position_ids_BT=torch.from_numpy(positions_T)[None].to(device),
        )
        second = batch[0].needed
        # A single row is not worth the statistics of all others, which the kernels would begin with.
        panels = AttentionPanels(layers, implementation="torch")
        if len(batch) > 1 and bool((panels.rows(second, second + 1)[..., :second] > 0).any()):
            raise CaptureError(
                f"expected packed sequences to be kept apart by their positions, got {type(self.model).__name__}, "
                "whose tokens attend across them; trace with pack=False"
            )
        results: list[Trace | Skipped] = []
        start = 0
        for item in batch:
            stop = start + item.needed
            own = [layer.segment(0, start, stop) for layer in layers]
            results += self._solve(own, AttentionPanels(own), [item])
            start = stop
        return results

    def _solve(
        self, layers: list[LayerAttention], attention: PanelSource, batch: list[_Encoded]
    ) -> list[Trace | Skipped]:
        panels = within_budget(attention, self.memory_budget)
        shape = (panels.batch, panels.length)
        question_BT, answer_BT = torch.zeros(2, *shape, dtype=torch.bool, device=panels.device)
        steps_BT = torch.zeros(shape, dtype=torch.long, device=panels.device)
        spans = [item.step_spans() for item in batch]
        for row, item in enumerate(batch):
            question_BT[row, item.question.start : item.question.stop] = True
            answer_BT[row, item.sink.start : item.sink.stop] = True
            for step, span in enumerate(spans[row]):
                steps_BT[row, span.start : span.stop] = step
        solution = solve(panels, question_BT, answer_BT)
        summaries = summarise_edges(panels, solution, max_edges=self.max_edges, steps_BT=steps_BT)
        edges = [summary.edges for summary in summaries]
        if self.heads_per_edge:
            # Maps of heads are what this pass reads, and torch's panels are small enough to hold them.
            maps = AttentionPanels(layers, implementation="torch")
            by_head = summarise_heads(maps, solution, edges, heads_per_edge=self.heads_per_edge)
            heads = [_head_fields(summary, layers) for summary in by_head]
        else:
            heads = [no_heads(len(kept), len(layers)) for kept in edges]
        return [
            self._result(item, spans[row], solution, row, summaries[row], heads[row]) for row, item in enumerate(batch)
        ]

    def _result(
        self,
        item: _Encoded,
        steps: list[Span],
        solution: Solution,
        row: int,
        summary: EdgeSummary,
        heads: dict[str, Any],
    ) -> Trace | Skipped:
        if not bool(solution.finite_B[row]):
            message = "expected finite attention, got NaN or infinity; check the model's weights and its dtype"
            return Skipped(id=item.rollout.id, reason="non_finite_attention", message=message)
        if not bool(solution.connected_B[row]):
            message = "expected a path of attention from the question to the answer, got none"
            return Skipped(id=item.rollout.id, reason="answer_out_of_reach", message=message)

        # Nothing flows through tokens and steps after the answer, and so they were not computed.
        def whole(values: Tensor | np.ndarray) -> ndarray:
            computed = torch.as_tensor(values).double().cpu().numpy()[: item.needed]
            return np.pad(computed, (0, len(item.text.token_ids) - len(computed)))

        step_flow = summary.step_flow[: len(steps), : len(steps)]

        return Trace(
            text=item.text.text,
            token_ids=item.text.token_ids,
            offsets=item.text.offsets,
            question=item.question,
            response=item.response,
            answer=item.answer,
            sink=item.sink,
            answer_text=item.found.text,
            answer_rule=item.found.rule,
            reach=whole(solution.reach_BT[row]),
            flow=whole(solution.flow_BT[row]),
            source=whole(solution.source_BT[row]),
            fan_in=whole(summary.fan_in),
            fan_out=whole(summary.fan_out),
            edges=summary.edges,
            **heads,
            step_spans=tuple(steps),
            step_flow=np.pad(step_flow, (0, len(steps) - len(step_flow))),
            layers=self.reader.layers,
            model=model_name(self.model),
            at=self.at,
            metadata={"id": item.rollout.id, **item.rollout.metadata},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    rollout: Rollout
    text: EncodedText
    question: Span
    response: Span
    answer: Span
    sink: Span
    found: Answer

    @property
    def needed(self) -> int:
        """Tokens up to the last that the flow ends in; what follows cannot carry flow. A forward takes at least two."""
        return max(self.sink.stop, 2)

    def step_spans(self) -> list[Span]:
        """Tokens of the prompt, then of each step of the response; a token belongs where it starts."""
        text, first = self.text, self.response.start
        steps = split_steps(text.text[text.response_start :])
        ends = np.searchsorted(text.offsets[first:, 0], [step.stop + text.response_start for step in steps])
        bounds = [0, first, *(first + ends)]
        bounds[-1] = len(text.token_ids)
        return [Span(start=int(a), stop=int(b)) for a, b in pairwise(bounds) if b > a]


def _token_span(offsets: ndarray, span: CharSpan) -> Span:
    found = tokens_overlapping([(int(a), int(b)) for a, b in offsets], span)
    if found is None:
        raise TraceError(
            "answer_not_tokenized",
            "expected tokens that spell the answer, got none: the tokenizer drops its characters",
        )
    return Span(start=found.start, stop=found.stop)


def _head_fields(summary: HeadSummary, layers: list[LayerAttention]) -> dict[str, Any]:
    """Heads under the model's own numbers, whichever of them were chosen."""
    width = 1 + max(head for layer in layers for head in layer.heads)
    numbers = np.zeros((len(layers), width, 2), dtype=np.int16)
    head_flow = np.zeros((len(layers), width))
    for group, layer in enumerate(layers):
        numbers[group, : len(layer.heads)] = [(layer.layer, head) for head in layer.heads]
        head_flow[group, list(layer.heads)] = summary.head_flow[group]
    return {
        "edge_heads": numbers[summary.edge_heads[..., 0], summary.edge_heads[..., 1]],
        "edge_head_shares": summary.edge_head_shares,
        "head_flow": head_flow / max(head_flow.sum(), np.finfo(float).tiny),
    }


def _batches(items: list[tuple[int, _Encoded]], max_tokens: int, pack: bool) -> Iterator[list[tuple[int, _Encoded]]]:
    """Cut items, shortest first, into forwards of at most `max_tokens`; padded batches cost their longest each."""
    batch: list[tuple[int, _Encoded]] = []
    packed = 0
    for item in items:
        needed = item[1].needed
        cost = packed + needed if pack else (len(batch) + 1) * needed
        if batch and cost > max_tokens:
            yield batch
            batch, packed = [], 0
        batch.append(item)
        packed += needed
    if batch:
        yield batch
