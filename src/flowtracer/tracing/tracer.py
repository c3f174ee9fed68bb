"""The meeting point: model and text in, trace out.

1. Encode prompt and response, and locate question, answer and steps among their tokens (`encoded.py`).
2. Run the model on the tokens up to the answer's last, and only up to the last chosen layer.
3. Average attention over heads and layers a panel at a time, solve for reach and flow, and read off the edges and the
   heads that carry them.

Rollouts of similar length run together, padded on the right or packed into one row; the numbers are those of each one
alone. A rollout that cannot be traced becomes a `Skipped` with a named reason and never stops a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.attention.shared_prefix import attention_panels
from flowtracer.errors import CaptureError, InputError, TraceError
from flowtracer.flow import EdgeSummary, HeadSummary, PanelSource, Solution, summarise_edges, summarise_heads
from flowtracer.flow.edges import MAX_EDGES
from flowtracer.flow.null import DistanceMeans, expected_flow
from flowtracer.flow.solve import DENSE_BYTES, solve, within_budget
from flowtracer.model.capture import AttentionReader, Heads
from flowtracer.model.forward import context_length
from flowtracer.model.load import load_model, model_name
from flowtracer.shapes import ndarray
from flowtracer.text.encoding import Messages
from flowtracer.text.span import Span
from flowtracer.trace.trace import Rollout, Skipped, Trace, no_heads
from flowtracer.tracing.encoded import Encoded, prepare_rollout


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
            is larger is *streamed*: every pass computes its panels again, which takes up to twice as long, and
            nothing of size T^2 is kept; docs/benchmarks.md has both.

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
        max_edges: int = MAX_EDGES,
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
        prepared: list[tuple[int, Encoded]] = []
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

    def _encode(self, rollout: Rollout) -> Encoded:
        limit = context_length(self.model)
        return prepare_rollout(self.tokenizer, rollout, at=self.at, question=self.question, limit=limit)

    def _encode_or_skip(self, rollout: Rollout) -> Encoded | Skipped:
        try:
            return self._encode(rollout)
        except TraceError as error:
            return Skipped(id=rollout.id, reason=error.reason, message=str(error))

    def _trace_padded(self, batch: list[Encoded]) -> list[Trace | Skipped]:
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

    def _trace_packed(self, batch: list[Encoded]) -> list[Trace | Skipped]:
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
        self, layers: list[LayerAttention], attention: PanelSource, batch: list[Encoded]
    ) -> list[Trace | Skipped]:
        stored = within_budget(attention, self.memory_budget)
        shape = (stored.batch, stored.length)
        question_BT, answer_BT = torch.zeros(2, *shape, dtype=torch.bool, device=stored.device)
        spans = [item.step_spans() for item in batch]
        for row, item in enumerate(batch):
            question_BT[row, item.question.start : item.question.stop] = True
            answer_BT[row, item.sink.start : item.sink.stop] = True
        panels = DistanceMeans(stored, answer_BT)
        solution = solve(panels, question_BT, answer_BT)
        expected_BT = expected_flow(panels.kernel_BT, solution)
        summaries = summarise_edges(panels, solution, max_edges=self.max_edges, steps=spans)
        edges = [summary.edges for summary in summaries]
        if self.heads_per_edge:
            # Maps of heads are what this pass reads, and torch's panels are small enough to hold them.
            maps = AttentionPanels(layers, implementation="torch")
            by_head = summarise_heads(maps, solution, edges, heads_per_edge=self.heads_per_edge)
            heads = [_head_fields(summary, layers) for summary in by_head]
        else:
            heads = [no_heads(len(kept), len(layers)) for kept in edges]
        return [
            self._result(item, spans[row], solution, row, summaries[row], heads[row], expected_BT[row])
            for row, item in enumerate(batch)
        ]

    def _result(
        self,
        item: Encoded,
        steps: list[Span],
        solution: Solution,
        row: int,
        summary: EdgeSummary,
        heads: dict[str, Any],
        expected_T: Tensor,
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
            step_edges=summary.step_edges,
            step_within=summary.step_within,
            layers=self.reader.layers,
            model=model_name(self.model),
            at=self.at,
            expected_flow=whole(expected_T),
            metadata={"id": item.rollout.id, **item.rollout.metadata},
        )


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


def _batches(items: list[tuple[int, Encoded]], max_tokens: int, pack: bool) -> Iterator[list[tuple[int, Encoded]]]:
    """Cut items, shortest first, into forwards of at most `max_tokens`; padded batches cost their longest each."""
    batch: list[tuple[int, Encoded]] = []
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
