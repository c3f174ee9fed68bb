"""Whether what a file holds is a trace: a digest says that nothing changed since it was written, not what wrote it.

Every field has its type, every array its shape, tokens and characters that are pointed at exist, edges run forward, and
what flows is a number. So whatever reads a trace may rely on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtracer.trace.images import image_fault

if TYPE_CHECKING:
    from flowtracer.trace.backbone import Edges
    from flowtracer.trace.trace import Trace

_TEXTS = ("text", "answer_text", "answer_rule", "model", "at", "capacity", "graph", "ends")
_KINDS: dict[str, type] = {**dict.fromkeys(_TEXTS, str), "metadata": Mapping}
_PER_TOKEN = ("reach", "flow", "source", "fan_in", "fan_out")


def check(trace: Trace) -> None:
    """Raise unless a trace is one.

    Raises:
        ValueError: Names the first field that cannot be.
    """
    fault = next(_faults(trace), None)
    if fault is not None:
        raise ValueError(f"{fault} cannot be that of a trace")


def _faults(trace: Trace) -> Iterator[str]:
    """The fields that cannot be, most basic first: what follows relies on what stands before."""
    yield from (name for name, kind in _KINDS.items() if not isinstance(getattr(trace, name), kind))
    if not all(_whole(layer) for layer in trace.layers):
        yield "layers"
    length, steps = _length(trace.token_ids), len(trace.step_spans)
    if length < 1 or trace.token_ids.dtype.kind not in "iu":
        yield "token_ids"
    for name in ("question", "response", "answer", "sink"):
        span = getattr(trace, name)
        if not (_whole(span.start) and _whole(span.stop) and 0 <= span.start <= span.stop <= length):
            yield name
    if not len(trace.question) or not len(trace.sink):
        yield "question" if not len(trace.question) else "sink"
    if not _within(trace.offsets, (length, 2), len(trace.text) + 1) or (np.diff(trace.offsets) < 0).any():
        yield "offsets"
    bounds = [0, *(place for span in trace.step_spans for place in (span.start, span.stop)), length]
    if bounds[::2] != bounds[1::2] or any(span.start >= span.stop for span in trace.step_spans):
        yield "steps"
    yield from (name for name in _PER_TOKEN if not _amounts(getattr(trace, name), (length,)))
    if trace.expected_flow is not None and not _amounts(trace.expected_flow, (length,)):
        yield "expected_flow"
    if not _amounts(trace.step_within, (steps,)):
        yield "step_within"
    yield from (f"edges' {part}" for part in _edge_faults(trace.edges, length))
    yield from (f"step_edges' {part}" for part in _edge_faults(trace.step_edges, steps))
    yield from _head_faults(trace)
    yield from _optional_faults(trace, length)


def _head_faults(trace: Trace) -> Iterator[str]:
    named = trace.edge_heads.shape[1] if trace.edge_heads.ndim == 3 else 0
    if trace.edge_heads.shape != (len(trace.edges), named, 2) or trace.edge_heads.dtype.kind not in "iu":
        yield "edge_heads"
    if not _numbers(trace.edge_head_shares, (len(trace.edges), named)):
        yield "edge_head_shares"
    if trace.head_flow.ndim != 2 or not _numbers(trace.head_flow, (len(trace.layers), trace.head_flow.shape[1])):
        yield "head_flow"


def _optional_faults(trace: Trace, length: int) -> Iterator[str]:
    if not all(0 <= token < length and _real(effect) for token, effect in trace.effects.items()):
        yield "effects"
    if image_fault(trace.images, trace.response.start):
        yield "images"
    nodes, trained = trace.layer_graph, trace.trained
    if nodes is not None:
        places = len(trace.layers) + 1
        if not _amounts(nodes.flow, (places, length)):
            yield "node_flow"
        yield from (f"node_edges' {part}" for part in _edge_faults(nodes.edges, places * length))
    if trained is not None:
        if not _whole(trained.step) or not _real(trained.advantage):
            yield "trained"
        for name in ("factor", "token_advantage"):
            if not _numbers(getattr(trained, name), (length,)):
                yield f"trained_{name}"


def _edge_faults(edges: Edges, nodes: int) -> Iterator[str]:
    if edges.complete not in (True, False):
        yield "complete"
    if edges.flow.ndim != 1 or not _amounts(edges.flow, edges.flow.shape):
        yield "flow"
    yield from (name for name in ("source", "target") if not _within(getattr(edges, name), edges.flow.shape, nodes))
    if (edges.source >= edges.target).any():
        yield "direction"


def _length(array: np.ndarray) -> int:
    return len(array) if array.ndim == 1 else 0


def _within(array: np.ndarray, shape: tuple[int, ...], stop: int) -> bool:
    """Whole numbers from 0 to one less than `stop`."""
    return array.shape == shape and array.dtype.kind in "iu" and bool(((array >= 0) & (array < stop)).all())


def _numbers(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and array.dtype.kind == "f"


def _amounts(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Numbers that are neither negative nor infinite nor NaN."""
    return _numbers(array, shape) and bool((np.isfinite(array) & (array >= 0)).all())


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
