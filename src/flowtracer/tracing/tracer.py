"""The meeting point: model and text in, trace out.

1. Encode prompt and response, and locate question, answer and steps among their tokens (`encoded.py`).
2. Run the model on the tokens up to the answer's last, and only up to the last chosen layer.
3. Average attention, or another capacity, over heads and layers a panel at a time, or layer by layer; solve for reach
   and flow, and read off the edges and the heads that carry them.

Rollouts of similar length run together, padded on the right or packed into one row; the numbers are those of each one
alone. One that shows images runs by itself. A rollout that cannot be traced becomes a `Skipped` with a named reason and
never stops a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.attention.capacity import CAPACITIES, GRAPHS, CapacityPanels, LayeredPanels
from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels, sees_before
from flowtracer.attention.shared_prefix import attention_panels
from flowtracer.errors import CaptureError, InputError, TraceError
from flowtracer.flow import EdgeSummary, HeadSummary, PanelSource, Solution, summarise_edges, summarise_heads
from flowtracer.flow.edges import MAX_EDGES
from flowtracer.flow.layer_panels import layers_within_budget
from flowtracer.flow.layered import ENDS, LayeredSolution, solve_layered
from flowtracer.flow.layered_edges import summarise_layered_edges
from flowtracer.flow.null import DistanceMeans, expected_flow
from flowtracer.flow.solve import DENSE_BYTES, solve, within_budget
from flowtracer.model.capture import AttentionReader, Heads
from flowtracer.model.contributions import PredictedTokens, layer_reader
from flowtracer.model.load import load_with_processor, model_name
from flowtracer.shapes import Int, ndarray
from flowtracer.text.answer import AnswerPattern, check_pattern
from flowtracer.text.messages import Messages
from flowtracer.text.span import Span
from flowtracer.trace.trace import Rollout, Skipped, Trace, no_heads
from flowtracer.tracing.encoded import Encoded, prepare_rollout


class Tracer:
    """Traces rollouts of one model.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer; or its processor, where prompts show images.
        layers: Decoder layers whose attention is averaged; None for the middle third, the paper's choice. Over layers
            those that walks go through; None for all that attend.
        heads: Heads of those layers, one list for all or one per layer; None for all.
        at: Where the flow ends: "token" for the answer's tokens, as in the paper, or "prediction" for the positions
            one before, whose hidden states predict them; None for "token" over tokens, "prediction" over layers.
        question: Where the flow starts: the whole "prompt", as in the paper, or the last "user" message alone.
        capacity: What an edge is: "attention", as in the paper, "value", "gradient" or "alti"; docs/method.md.
        graph: Layers summed into one graph on "tokens", as in the paper, or "layered", a node for each token at each
            layer, which a walk passes in order.
        ends: Over layers, where backward walks end: "anywhere", or in the "question", as over tokens.
        max_edges: Largest edges that a trace keeps.
        heads_per_edge: For how many heads a trace says what they give to each kept edge; 0 to look at no head, which
            saves one pass over the attention. Heads are told apart for attention over tokens alone.
        answer_pattern: How responses state their answer, where not in one of the usual ways: a regular expression whose
            first group is the answer, or a function; `text/answer.py`.
        memory_budget: Bytes that the matrix of attention may take, half of T^2 float32 a rollout, and as much for each
            layer over layers. A batch whose matrix is larger is *streamed*: every pass computes its panels again, which
            takes up to twice as long, and nothing of size T^2 is kept; docs/benchmarks.md has both.

    Raises:
        CaptureError: The model's attention, or what the capacity asks for beside it, cannot be read.
        InputError: An option that does not exist.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | Heads | None = None,
        *,
        at: str | None = None,
        question: str = "prompt",
        capacity: str = "attention",
        graph: str = "tokens",
        ends: str = "anywhere",
        max_edges: int = MAX_EDGES,
        heads_per_edge: int = 3,
        answer_pattern: AnswerPattern | None = None,
        memory_budget: int = DENSE_BYTES,
    ) -> None:
        at = at or ("prediction" if graph == "layered" else "token")
        for name, value, choices in (
            ("at", at, ("token", "prediction")),
            ("question", question, ("prompt", "user")),
            ("capacity", capacity, tuple(CAPACITIES)),
            ("graph", graph, GRAPHS),
            ("ends", ends, ENDS),
        ):
            if value not in choices:
                raise InputError(f"expected {name} among {choices}, got {value!r}")
        check_pattern(answer_pattern)
        self.reader = layer_reader(model, layers, heads, capacity=capacity, graph=graph)
        self.model = model
        self.processor = tokenizer if hasattr(tokenizer, "image_processor") else None
        self.tokenizer = tokenizer if self.processor is None else self.processor.tokenizer
        self.at = at
        self.question = question
        self.capacity = capacity
        self.graph = graph
        self.ends = ends if graph == "layered" else "question"
        self.max_edges = max_edges
        self.heads_per_edge = heads_per_edge
        self.answer_pattern = answer_pattern
        self.memory_budget = memory_budget

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, *, device: str | None = None, dtype: str | None = None, **options: Any
    ) -> Tracer:
        """Load a model and its tokenizer, or its processor where it takes images, by hub id, folder, `.gguf` file,
        "nano" or "smollm2"; see `model/load.py`.

        `options` are those of the class.
        """
        return cls(*load_with_processor(name_or_path, device=device, dtype=dtype), **options)

    def trace(self, prompt: str | Messages, response: str, answer: str | None = None) -> Trace:
        """Trace one rollout.

        Args:
            prompt: Text, used as it is, or chat messages, which the model's template turns into text. They may show
                images, as parts `{"type": "image", "image": picture or path}` of a message's content.
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
            packed = pack and encoded[0].shown is None
            try:
                results = self._trace_packed(encoded) if packed else self._trace_padded(encoded)
            except TraceError as error:  # a picture that could be read when its prompt was encoded, and is gone
                results = [Skipped(id=item.rollout.id, reason=error.reason, message=str(error)) for item in encoded]
            yield from zip([index for index, _ in batch], results, strict=True)

    def trace_attention(self, rollout: Rollout, layers: Sequence[LayerAttention]) -> Trace | Skipped:
        """Trace one rollout whose attention another pass over it has given; the model is not run.

        Args:
            rollout: The text of that pass, or its `token_ids`.
            layers: What the tracer's layers attended with, over a batch of one, without padding.

        Raises:
            InputError: The pass ended before the last token that the flow ends in; see `needed_tokens`.
        """
        if not isinstance(self.reader, AttentionReader):
            raise InputError(
                f"expected a tracer that needs attention alone, got capacity={self.capacity!r} over {self.graph}, "
                "which needs values as well; use trace()"
            )
        item = self._encode_or_skip(rollout)
        if isinstance(item, Skipped):
            return item
        given = layers[0].query_BHTD.shape[2]
        if given < item.needed:
            raise InputError(f"expected attention of at least {item.needed} tokens, got {given}; use trace()")
        own = [layer.segment(0, 0, item.needed) for layer in layers]
        return self._solve(own, [item])[0]

    def needed_tokens(self, rollout: Rollout) -> int:
        """Tokens up to the last that the flow ends in: those that a trace runs the model over.

        Raises:
            TraceError: This rollout cannot be traced; `.reason` names why.
        """
        return self._encode(rollout).needed

    def _encode(self, rollout: Rollout) -> Encoded:
        return prepare_rollout(
            self.model,
            self.tokenizer,
            rollout,
            at=self.at,
            question=self.question,
            processor=self.processor,
            pattern=self.answer_pattern,
        )

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
        layers = self._read(ids_BT.to(device), batch, mask_BT=mask_BT)
        return self._solve(layers, batch, (ids_BT, valid_BT))

    def _trace_packed(self, batch: list[Encoded]) -> list[Trace | Skipped]:
        device = self.model.device
        ids_T = np.concatenate([item.text.token_ids[: item.needed] for item in batch])
        positions_T = np.concatenate([np.arange(item.needed) for item in batch])
        layers = self._read(
            torch.from_numpy(ids_T)[None].to(device), batch, positions_BT=torch.from_numpy(positions_T)[None].to(device)
        )
        second = batch[0].needed
        if len(batch) > 1 and sees_before(layers, second):
            raise CaptureError(
                f"expected packed sequences to be kept apart by their positions, got {type(self.model).__name__}, "
                "whose tokens attend across them; trace with pack=False"
            )
        results: list[Trace | Skipped] = []
        start = 0
        for item in batch:
            stop = start + item.needed
            own = [layer.segment(0, start, stop) for layer in layers]
            results += self._solve(own, [item])
            start = stop
        return results

    def _read(
        self,
        ids_BT: Int[Tensor, "B T"],
        batch: list[Encoded],
        *,
        mask_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
    ) -> list[LayerAttention]:
        """What the layers attend with, and whatever else the capacity asks for."""
        images = None if batch[0].shown is None else batch[0].shown.inputs(self.model, batch[0].needed)
        if isinstance(self.reader, AttentionReader):
            return self.reader.read(ids_BT, mask_BT, positions_BT, images=images)
        # Padded, a rollout has a row of its own; packed, they stand behind each other in one.
        starts = np.arange(len(batch)) * ids_BT.shape[1]
        if positions_BT is not None:
            starts = np.cumsum([0, *(item.needed for item in batch[:-1])])
        predicting_X = torch.zeros(ids_BT.numel(), dtype=torch.bool)
        for item, start in zip(batch, starts.tolist(), strict=True):
            predicting_X[start + item.answer.start - 1 : start + item.answer.stop - 1] = True
        token_ids = [item.text.token_ids[item.answer.start : item.answer.stop] for item in batch]
        predicted = PredictedTokens(
            predicting_BT=predicting_X.view(ids_BT.shape), token_ids_N=torch.from_numpy(np.concatenate(token_ids))
        )
        return self.reader.read(ids_BT, mask_BT, positions_BT, images=images, predicted=predicted)

    def _solve(
        self, layers: list[LayerAttention], batch: list[Encoded], tokens: tuple[Tensor, Tensor] | None = None
    ) -> list[Trace | Skipped]:
        """Traces of a batch; `tokens` are its ids and which of them are none of padding, where some may be shared."""
        shape = (len(batch), layers[0].query_BHTD.shape[2])
        question_BT, answer_BT = torch.zeros(2, *shape, dtype=torch.bool, device=layers[0].query_BHTD.device)
        for row, item in enumerate(batch):
            question_BT[row, item.question.start : item.question.stop] = True
            answer_BT[row, item.sink.start : item.sink.stop] = True
        if self.graph == "layered":
            return self._solve_layered(layers, batch, question_BT, answer_BT)
        if self.capacity != "attention":
            attention: PanelSource = CapacityPanels([CAPACITIES[self.capacity](layer) for layer in layers])
        else:
            attention = AttentionPanels(layers) if tokens is None else attention_panels(layers, *tokens)
        panels = DistanceMeans(within_budget(attention, self.memory_budget), answer_BT)
        spans = [item.step_spans() for item in batch]
        solution = solve(panels, question_BT, answer_BT)
        expected_BT = expected_flow(panels.kernel_BT, solution)
        summaries = summarise_edges(panels, solution, max_edges=self.max_edges, steps=spans)
        edges = [summary.edges for summary in summaries]
        if self.heads_per_edge and self.capacity == "attention":
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

    def _solve_layered(
        self, layers: list[LayerAttention], batch: list[Encoded], question_BT: Tensor, answer_BT: Tensor
    ) -> list[Trace | Skipped]:
        stack = LayeredPanels([CAPACITIES[self.capacity](layer) for layer in layers])
        panels = layers_within_budget(stack, self.memory_budget)
        spans = [item.step_spans() for item in batch]
        solution = solve_layered(panels, question_BT, answer_BT, ends=self.ends)
        numbers = [layer.layer for layer in layers]
        found = summarise_layered_edges(panels, solution, layers=numbers, max_edges=self.max_edges, steps=spans)
        return [
            self._result(
                item,
                spans[row],
                solution,
                row,
                summary,
                {**no_heads(len(summary.edges), len(layers)), "layer_graph": graph.of_length(len(item.text.token_ids))},
            )
            for row, (item, (summary, graph)) in enumerate(zip(batch, found, strict=True))
        ]

    def _result(
        self,
        item: Encoded,
        steps: list[Span],
        solution: Solution | LayeredSolution,
        row: int,
        summary: EdgeSummary,
        more: dict[str, Any],
        expected_T: Tensor | None = None,
    ) -> Trace | Skipped:
        if not bool(solution.finite_B[row]):
            message = "expected finite attention, got NaN or infinity; check the model's weights and its dtype"
            return Skipped(id=item.rollout.id, reason="non_finite_attention", message=message)
        if not bool(solution.connected_B[row]):
            message = f"expected a path of {self.capacity} from the question to the answer, got none"
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
            **more,
            step_spans=tuple(steps),
            step_edges=summary.step_edges,
            step_within=summary.step_within,
            layers=self.reader.layers,
            model=model_name(self.model),
            at=self.at,
            capacity=self.capacity,
            graph=self.graph,
            ends=self.ends,
            expected_flow=None if expected_T is None else whole(expected_T),
            images=item.images,
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
    """Cut items, shortest first, into forwards of at most `max_tokens`; padded batches cost their longest each.

    One with images is a batch: what a processor makes of several rollouts differs by family in how it is put together.
    """
    batch: list[tuple[int, Encoded]] = []
    packed = 0
    for item in items:
        needed = item[1].needed
        cost = packed + needed if pack else (len(batch) + 1) * needed
        apart = bool(batch) and (item[1].shown or batch[0][1].shown) is not None
        if batch and (cost > max_tokens or apart):
            yield batch
            batch, packed = [], 0
        batch.append(item)
        packed += needed
    if batch:
        yield batch
