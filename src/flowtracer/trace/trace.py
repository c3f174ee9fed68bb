"""A trace: one rollout, and how much of its question-to-answer flow passes through every token.

Numpy only: a saved trace can be studied without torch and without the model. On disk a trace is one safetensors file
whose header carries the rest as JSON, so nothing of it is ever executed. The header also holds the SHA-256 of the whole
file, taken with zeros in its place: a file of which one bit has turned over is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowtracer.errors import FormatError, InputError
from flowtracer.folders import digest, write_atomically
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.text.messages import Messages, with_images
from flowtracer.text.printable import printable
from flowtracer.text.span import Span
from flowtracer.trace import backbone
from flowtracer.trace.backbone import Backbone, Edges, TokenGraph
from flowtracer.trace.backbone import Path as TokenPath
from flowtracer.trace.images import TraceImage, patch_label, take_images, to_arrays, to_header
from flowtracer.trace.layered import LayerGraph
from flowtracer.trace.pictures import content_digest
from flowtracer.trace.summary import summary
from flowtracer.trace.unit_flow import Hub, UnitFlow
from flowtracer.trace.units import Unit, units
from flowtracer.trace.wellformed import check

SCHEMA_VERSION = 5
"""2 added the heads of edges, the flow by head, and what a trainer made of it; traces of 1 are read without them.
3 added the digest, and the flow between steps as a list; older files are read unchecked, with its whole matrix.
4 added the capacity and the graph, and what every token's place alone would carry; older files are read without.
5 added images."""

_LABEL_LENGTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A prompt and what a model answered to it."""

    prompt: str | Messages
    """Text, used as it is, or chat messages, which the model's template turns into text. A message's content may be
    parts, and a part an image: `{"type": "image", "image": picture or path}`."""
    response: str
    answer: str | None = None
    """The final answer as it stands in the response; None: locate it."""
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    token_ids: tuple[Sequence[int], Sequence[int]] | None = None
    """Prompt and response as they were sampled, where known: encoding their text again may cut it into other tokens.
    The text is then theirs."""

    @property
    def digest(self) -> str:
        """Of all that a trace of it follows from, and so not of its id and metadata; of images, their content."""
        prompt: Any = self.prompt
        if not isinstance(prompt, str):
            prompt = with_images(prompt, lambda image: {"digest": content_digest(image)})
        ids = self.token_ids and [[int(token) for token in part] for part in self.token_ids]
        return digest(prompt, self.response, self.answer, ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A rollout that could not be traced, and why."""

    id: str
    reason: str
    """One word, to count by."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A sentence or line of the response; the prompt is step 0."""

    index: int
    span: Span
    text: str
    flow: float
    """Sum of f over its tokens."""
    inflow: float
    """Flow along edges from other steps, and from the source."""
    outflow: float
    """Flow along edges to other steps."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays have no one truth value
class TrainedOn:
    """What a trainer made of a response, token by token, as it entered the loss."""

    step: int
    """Optimiser steps done before."""
    advantage: float
    """The response's own, the same for each of its tokens."""
    factor: Float[ndarray, " T"]
    """Credit: each token's advantage over the response's own. 0 on the prompt and on tokens that the loss left out; 1
    where the response has none."""
    token_advantage: Float[ndarray, " T"]
    """Advantage times factor, the very number that entered the loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Flow over one sequence, prompt and response together. Arrays are in sequence order.

    Two traces are equal where all that they hold is, to the bit.
    """

    text: str
    """Prompt and response as the model read them."""
    token_ids: Int[ndarray, " T"]
    offsets: Int[ndarray, "T 2"]
    """Characters of `text` that each token contributes to, half-open."""
    question: Span
    """Where the flow starts from."""
    response: Span
    answer: Span
    """Tokens that overlap the answer's own characters."""
    sink: Span
    """Where the flow ends: the answer (`at="token"`) or the positions that predict it (`at="prediction"`)."""
    answer_text: str
    answer_rule: str
    """Which rule found the answer."""
    reach: Float[ndarray, " T"]
    """h: expected visits of backward attention walks from the answer, at most one per answer token."""
    flow: Float[ndarray, " T"]
    """f: share of the question-to-answer flow that passes through."""
    source: Float[ndarray, " T"]
    """s: what enters from the source; sums to 1."""
    fan_in: Float[ndarray, " T"]
    """Effective number of tokens gathered from: exp of the entropy of the inflow."""
    fan_out: Float[ndarray, " T"]
    """Effective number of tokens handed on to: exp of the entropy of the outflow."""
    edges: Edges
    """Edges of largest flow, largest first."""
    edge_heads: Int[ndarray, "E N 2"]
    """[decoder layer, head] of the heads that give most to each edge's capacity, largest first; none if unasked."""
    edge_head_shares: Float[ndarray, "E N"]
    """Share of the edge's capacity that each of them gives."""
    head_flow: Float[ndarray, "L H"]
    """Share of the flow along all edges, kept or not, that each head of each of `layers` gives; sums to 1. 0 where a
    head was not chosen."""
    step_spans: tuple[Span, ...]
    """Tokens of each step; step 0 is the prompt."""
    step_edges: Edges
    """Flows between different steps, largest first: sums over all token edges from one to the other. Of more steps than
    several hundred the largest alone are kept, and `.complete` says so."""
    step_within: Float[ndarray, " S"]
    """Flow along token edges inside of each step."""
    layers: tuple[int, ...]
    """Decoder layers that attention was averaged over."""
    model: str
    at: str = "token"
    capacity: str = "attention"
    """What an edge is: "attention", "value", "gradient" or "alti"."""
    graph: str = "tokens"
    """Layers summed into one graph on "tokens", or a node for each token at each layer, "layered"."""
    ends: str = "question"
    """Where backward walks end: in the "question", or over layers "anywhere"."""
    layer_graph: LayerGraph | None = None
    """Over layers: flow between nodes, of which backbone and paths are read; over tokens None."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the rollout brought along: id, reward and the like; JSON values."""
    trained: TrainedOn | None = None
    """Where a trainer learned from this very response: how."""
    expected_flow: Float[ndarray, " T"] | None = None
    """f by place alone, of attention that knows only distance (`flow/null.py`); None in files before schema 4."""
    effects: Mapping[int, float] = field(default_factory=dict)
    """Change of log p(answer), in nats, when a hub is hidden from all later tokens; by its token, where measured."""
    images: tuple[TraceImage, ...] = ()
    """What the prompt shows: its patches are tokens of the prompt."""
    schema_version: int = SCHEMA_VERSION

    def __len__(self) -> int:
        return len(self.token_ids)

    def __repr__(self) -> str:
        name = printable(str(self.metadata.get("id", ""))) or "of a rollout"
        graded = self.metadata.get("is_correct")
        verdict = "" if graded is None else ", right" if graded else ", wrong"
        steps = max(len(self.step_spans) - 1, 0)
        answer = printable(self.answer_text)
        return f"<Trace {name}: {len(self)} tokens, {steps} steps, answer {answer}{verdict}; {printable(self.model)}>"

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Trace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256, as hexadecimal digits, of the file that `save` writes."""
        return _digest(_content(self))

    @property
    def tokens(self) -> tuple[str, ...]:
        """Text of every token. A character that several tokens spell together stands in each of them."""
        return tuple(self.text[start:stop] for start, stop in self.offsets)

    @property
    def throughput(self) -> Float[ndarray, " T"]:
        """tau: inflow plus outflow; 2 f off the answer, f on it."""
        return np.where(self.sink.mask(len(self)), 1.0, 2.0) * self.flow

    @property
    def excess(self) -> Float[ndarray, " T"] | None:
        """Flow through each token above what its place alone would carry; None where that is not known."""
        return None if self.expected_flow is None else self.flow - self.expected_flow

    @property
    def step_flow(self) -> Float[ndarray, "S S"]:
        """[i, j]: flow along edges from step i to step j, of the kept `step_edges`; made anew at each call."""
        flow_SS = np.diag(self.step_within)
        flow_SS[self.step_edges.source, self.step_edges.target] = self.step_edges.flow
        return flow_SS

    @property
    def layer_flow(self) -> Float[ndarray, " L"]:
        """Share of the flow along all edges that each of `layers` gives; sums to 1."""
        return self.head_flow.sum(1)

    def hubs(self, n: int = 5, *, level: str = "words", by: str = "flow", prompt: bool = False) -> list[Hub]:
        """Through which "words", "steps" or "tokens" of the reasoning most flows; never the answer, nor its cue.

        Args:
            n: How many.
            level: What is ranked.
            by: "flow", or "excess": flow above what the place alone would carry.
            prompt: Whether what stands in the prompt is ranked as well.

        Raises:
            InputError: No such level or order; `by="excess"` of a trace that knows no `expected_flow`.
        """
        return UnitFlow(self, level).hubs(n, by=by, prompt=prompt)

    def units(self, level: str = "words") -> list[Unit]:
        """The "words", "steps" or "tokens" of the trace, in order; they tile its tokens."""
        return units(self, level)

    def backbone(self, share: float = 0.5, *, level: str = "tokens") -> Backbone:
        """The fewest largest edges of which a walk uses no other with probability `share`.

        Its own `.share` says what was reached: less than asked for only where the trace kept fewer edges than it takes.
        Between "words" or "steps" its edges run from one place in `units(level)` to another.
        """
        if level != "tokens":
            return UnitFlow(self, level).backbone(share)
        if self.layer_graph is not None:
            return self.layer_graph.backbone(share, self.sink.mask(len(self)))
        return backbone.backbone(self.token_graph, share)

    def paths(self, k: int = 5, *, level: str = "steps") -> list[TokenPath]:
        """The `k` most probable ways from question to answer through "steps", "words" or "tokens", with shares."""
        return UnitFlow(self, level).paths(k)

    def share_through(self, tokens: list[int]) -> float:
        """Probability that a walk from question to answer passes any of `tokens`; a lower bound if edges were cut."""
        if self.layer_graph is not None:
            return self.layer_graph.share_through(tokens, self.sink.mask(len(self)))
        return backbone.share_through(self.token_graph, tokens)

    def steps(self) -> list[Step]:
        """The prompt and every sentence or line of the response, with the flow that each carries."""
        # A token hands on what it was given, so what crosses a step's border is what passes less what stays inside.
        passed_on = np.where(self.sink.mask(len(self)), 0.0, self.flow)
        return [
            Step(
                index=index,
                span=span,
                text=self.slice_text(span),
                flow=float(self.flow[span.start : span.stop].sum()),
                inflow=float(max(0.0, self.flow[span.start : span.stop].sum() - within)),
                outflow=float(max(0.0, passed_on[span.start : span.stop].sum() - within)),
            )
            for index, (span, within) in enumerate(zip(self.step_spans, self.step_within, strict=True))
        ]

    def label(self, token: int) -> str:
        """A token as a reader knows it: the word or number that it is part of, the mark or the patch that it is.

        White space and what cannot be printed are visible, so that nothing of it steers a terminal.
        """
        if (patch := patch_label(self.images, token)) is not None:
            return patch
        start, stop = (int(x) for x in self.offsets[token])
        piece = self.text[start:stop].strip(" ")
        if piece.isalnum():
            start += len(self.text[start:stop]) - len(self.text[start:stop].lstrip(" "))
            while start > 0 and self.text[start - 1].isalnum() and stop - start < _LABEL_LENGTH:
                start -= 1
            while stop < len(self.text) and self.text[stop].isalnum() and stop - start < _LABEL_LENGTH:
                stop += 1
            piece = self.text[start:stop].strip(" ")
        shown = piece[:_LABEL_LENGTH].replace("\n", "⏎")
        return printable(shown) or "␣"

    def slice_text(self, span: Span) -> str:
        """Text of a span of tokens."""
        if not len(span):
            return ""
        return self.text[self.offsets[span.start : span.stop, 0].min() : self.offsets[span.start : span.stop, 1].max()]

    def conservation_error(self) -> float:
        """Largest violation of conservation, 0 in exact arithmetic.

        A unit must leave the source, a unit must arrive at the answer, and where all edges were kept, what enters a
        token must equal what leaves it. Over layers, each layer must carry a unit.
        """
        errors = [abs(self.source.sum() - 1)]
        inside = ~self.sink.mask(len(self))
        if self.layer_graph is None:
            errors.append(abs(self.flow[self.sink.start : self.sink.stop].sum() - 1))
        else:
            errors += [np.abs(self.layer_graph.flow.sum(1) - 1).max(), self.layer_graph.flow[-1, inside].max(initial=0)]
        if self.edges.complete:
            arriving = np.bincount(self.edges.target, self.edges.flow, len(self)) + self.source
            leaving = np.bincount(self.edges.source, self.edges.flow, len(self))
            errors.append(np.abs(arriving - self.flow).max(initial=0))
            errors.append(np.abs((leaving - self.flow)[inside]).max(initial=0))
        return float(max(errors))

    def summary(self) -> str:
        """One sentence: which steps and numbers carried the answer, and what came straight from the prompt."""
        return summary(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings, ready for JSON."""
        return {
            **_header(self),
            "tokens": list(self.tokens),
            "throughput": self.throughput.tolist(),
            **{name: array.tolist() for name, array in _arrays(self).items()},
        }

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all; the folder must exist."""
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"expected an existing folder, got {str(path.parent)!r}; create it first")
        return write_atomically(path, _content(self))

    @property
    def token_graph(self) -> TokenGraph:
        """Its tokens and the flow between them, over all layers together."""
        return TokenGraph(edges=self.edges, flow=self.flow, source=self.source, sink=self.sink.mask(len(self)))

    @property
    def walk_graph(self) -> TokenGraph:
        """What walks are a Markov chain on: the tokens, or over layers the nodes, `n` of which is token `n % len`."""
        return self.token_graph if self.layer_graph is None else self.layer_graph.nodes(self.sink.mask(len(self)))

    # The arrows that run back: a trace shows itself, and what it looks like is the report's business.

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page that opens offline by a double click; the folder must exist."""
        from flowtracer.report.page.html import trace_page, write_page

        return write_page(path, trace_page(self))

    def show(self) -> None:
        """Show the page: in the notebook where there is one, else in the browser."""
        from flowtracer.report.page.html import show

        show(self)

    def figure(self, name: str = "positions") -> Any:
        """A matplotlib figure of this trace, one of `flowtracer.report.figures.plots.FIGURES`."""
        from flowtracer.report.figures.plots import draw

        return draw(name, [self])

    def _repr_html_(self) -> str:
        from flowtracer.report.page.html import framed, trace_page

        return framed(trace_page(self))

    def __rich__(self) -> Any:
        from flowtracer.report.terminal.trace import render

        return render(self)


def load_trace(path: str | Path) -> Trace:
    """Read a trace that `Trace.save` wrote.

    Raises:
        FormatError: Not a trace, one that was damaged, or one of a newer schema.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        header, content = _read(Path(path))
        if header["schema_version"] > SCHEMA_VERSION:
            raise FormatError(
                f"expected a trace of schema {SCHEMA_VERSION} or older, got {header['schema_version']} in "
                f"{str(path)!r}; update flowtracer"
            )
        found = _built(header, load(content))
        check(found)
        return found
    except FormatError:
        raise
    # Beside bytes that are neither: JSON and arrays that make no trace.
    except (
        OSError,
        SafetensorError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise FormatError(f"expected a trace written by Trace.save, got {str(path)!r}: {error!r}") from error


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a trace and its whole file, which must be what its digest says."""
    with path.open("rb") as file:
        size = file.read(8)
        start = file.read(min(int.from_bytes(size, "little"), _LONGEST_HEADER))
        # A model's weights end here, before gigabytes of them are read.
        header = json.loads(json.loads(start)["__metadata__"]["flowtracer"])
        content = size + start + file.read()
    signed = _SIGNATURE.search(content)
    if signed is None and header["schema_version"] >= _FIRST_SIGNED:
        raise ValueError("without its digest")
    if signed is not None and signed[0].decode("ascii") != _digest(content):
        raise ValueError("damaged since it was written")
    return header, content


def _built(header: dict[str, Any], arrays: dict[str, Any]) -> Trace:
    header.pop(_SHA256, None)
    header["schema_version"] = SCHEMA_VERSION
    if "step_flow" in arrays:
        arrays |= _listed(arrays.pop("step_flow"))
    edges, step_edges = (
        Edges(
            **{name: arrays.pop(f"{kind}_{name}") for name in ("source", "target", "flow")},
            complete=header.pop(f"{kind}s_complete", True),
        )
        for kind in _EDGES
    )
    steps = tuple(Span(start=int(start), stop=int(stop)) for start, stop in arrays.pop("steps"))
    spans: dict[str, Any] = {name: Span(**header.pop(name)) for name in _SPANS}
    layers = tuple(header.pop("layers"))
    if "head_flow" not in arrays:
        arrays |= no_heads(len(edges), len(layers))
    effects = {int(token): effect for token, effect in header.pop("effects", {}).items()}
    if "node_flow" in arrays:
        header["layer_graph"] = LayerGraph(
            edges=Edges(
                **{name: arrays.pop(f"node_edge_{name}") for name in ("source", "target", "flow")},
                complete=header.pop("node_edges_complete"),
            ),
            flow=arrays.pop("node_flow"),
            layers=layers,
        )
    trained = header.pop("trained", None)
    if trained is not None:
        trained = TrainedOn(**trained, **{name: arrays.pop(f"trained_{name}") for name in _TRAINED})
    fields: dict[str, Any] = {"layers": layers, "trained": trained, "effects": effects}
    fields["images"] = take_images(header, arrays)
    return Trace(**header, **arrays, **spans, **fields, edges=edges, step_edges=step_edges, step_spans=steps)


def find_traces(path: str | Path) -> list[Path]:
    """Trace files in order: the file itself, or all of a folder; of its `traces` alone, where a command left some.

    Raises:
        InputError: No such file or folder, or a folder without traces.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"expected a trace or a folder of traces, got {str(path)!r}, which does not exist")
    # Beside its traces a run's folder holds models, in files of the same kind.
    found = sorted((path / "traces" if (path / "traces").is_dir() else path).rglob("*.safetensors"))
    if not found:
        raise InputError(f"expected traces in {str(path)!r}, got none; write them with `flowtracer trace`")
    return found


def no_heads(edges: int, layers: int) -> dict[str, Any]:
    """The fields of a trace whose heads were not looked at."""
    return {
        "edge_heads": np.zeros((edges, 0, 2), dtype=np.int16),
        "edge_head_shares": np.zeros((edges, 0), dtype=np.float32),
        "head_flow": np.zeros((layers, 0)),
    }


def _listed(flow_SS: Float[ndarray, "S S"]) -> dict[str, np.ndarray]:
    """The arrays that say the same as a matrix of flow between steps."""
    source, target = np.nonzero(flow_SS - np.diag(np.diag(flow_SS)))
    order = np.argsort(-flow_SS[source, target], kind="stable")
    source, target = source[order], target[order]
    return {
        "step_edge_source": source,
        "step_edge_target": target,
        "step_edge_flow": flow_SS[source, target],
        "step_within": np.diag(flow_SS).copy(),
    }


# What JSON and arrays raise that are well-formed and make no trace.
_NO_TRACE = (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
_SPANS = ("question", "response", "answer", "sink")
_EDGES = ("edge", "step_edge")
_TRAINED = ("factor", "token_advantage")
_GRAPH = ("capacity", "graph", "ends")
_SHA256 = "file_sha256"
_FIRST_SIGNED = 3
_LONGEST_HEADER = 100_000_000  # of safetensors
# JSON within JSON. Whatever text a trace holds stands one string deeper, and its quotes behind more backslashes.
_SIGNATURE = re.compile(rb'(?<=\\"file_sha256\\": \\")[0-9a-f]{64}(?=\\")')
_UNSIGNED = "0" * 64


def _content(trace: Trace) -> bytes:
    """The file of a trace."""
    return _signed(_header(trace), _arrays(trace))


def _signed(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """A file with its digest."""
    from safetensors.numpy import save

    content = save(arrays, metadata={"flowtracer": json.dumps({_SHA256: _UNSIGNED, **header}, sort_keys=True)})
    return _SIGNATURE.sub(_digest(content).encode("ascii"), content, count=1)


def _digest(content: bytes) -> str:
    return hashlib.sha256(_SIGNATURE.sub(_UNSIGNED.encode("ascii"), content, count=1)).hexdigest()


def _header(trace: Trace) -> dict[str, Any]:
    names = ("schema_version", "text", "answer_text", "answer_rule", "layers", "model", "at", *_GRAPH)
    over_layers = {} if trace.layer_graph is None else {"node_edges_complete": trace.layer_graph.edges.complete}
    return {
        **{name: getattr(trace, name) for name in names},
        **over_layers,
        **to_header(trace.images),
        **{name: dataclasses.asdict(getattr(trace, name)) for name in _SPANS},
        **{f"{kind}s_complete": getattr(trace, f"{kind}s").complete for kind in _EDGES},
        "trained": trace.trained and {"step": trace.trained.step, "advantage": trace.trained.advantage},
        "effects": {str(token): effect for token, effect in trace.effects.items()},
        "metadata": dict(trace.metadata),
    }


def _arrays(trace: Trace) -> dict[str, np.ndarray]:
    names = ("token_ids", "offsets", "reach", "flow", "source", "fan_in", "fan_out", "step_within")
    by_head = ("edge_heads", "edge_head_shares", "head_flow")
    over_layers = {}
    if (nodes := trace.layer_graph) is not None:
        over_layers = {f"node_edge_{name}": getattr(nodes.edges, name) for name in ("source", "target", "flow")}
        over_layers["node_flow"] = nodes.flow
    return {
        **over_layers,
        **to_arrays(trace.images),
        **{name: getattr(trace, name) for name in (*names, *by_head)},
        "steps": np.array([[span.start, span.stop] for span in trace.step_spans], dtype=np.int64).reshape(-1, 2),
        **{
            f"{kind}_{name}": getattr(getattr(trace, f"{kind}s"), name)
            for kind in _EDGES
            for name in ("source", "target", "flow")
        },
        **{f"trained_{name}": getattr(trace.trained, name) for name in _TRAINED if trace.trained is not None},
        **({} if trace.expected_flow is None else {"expected_flow": trace.expected_flow}),
    }
