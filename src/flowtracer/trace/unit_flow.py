"""A trace read at one level: its hubs, paths and backbone among tokens, words or steps.

Units tile the tokens and edges run forward, so a walk enters a unit at most once. Hence, exact where the trace kept all
of its edges (else edges and paths are lower bounds, and what passes a word is an upper one):

1. the flow *along* an edge between units, the probability that a walk steps from the one to the other, is the sum of
   the token edges between them;
2. the flow *through* a unit, the probability that a walk passes it, is the sum of its tokens' flow less what moves
   inside of it;
3. the share of a *path* through units is the probability that a walk passes these and no others, by one sweep over the
   token edges that it may use. Which paths are swept is decided by the chain that remembers no more than the unit it is
   in: `Path.exact` is said of paths through tokens alone.

*Hubs* are the units of the reasoning through which most flows, never the answer or its cue. What of it is due to their
place alone is said beside it: what a unit of average length would carry there, if attention knew nothing but distance
(so a number is not held to the sum of its digits). The *excess* over that is the other order that may be asked for; as
experiments/LOG.md has it, flow itself orders words better by what hiding them does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int, ndarray
from flowtracer.trace import backbone
from flowtracer.trace.backbone import Backbone, Edges, Path, TokenGraph
from flowtracer.trace.units import Unit, answer_span, units

if TYPE_CHECKING:
    from flowtracer.trace.trace import Trace

ORDERS = ("flow", "excess")
_CANDIDATES = 4
"""Paths through units that are swept for each that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hub:
    """A word, a step or a token that much of the flow passes through."""

    unit: Unit
    token: int
    """The token of it that carries most."""
    flow: float
    """Probability that a walk from question to answer passes it."""
    expected: float | None
    """What a unit of average length would carry in its place; None where the trace has no null model. It counts a walk
    once for every token: right for tokens, nearly so for words, too much for steps."""
    fan_in: float
    """Effective number of units it gathers from: exp of the entropy of its inflow."""
    fan_out: float
    """Effective number of units it hands on to: exp of the entropy of its outflow."""
    kind: str
    """"aggregation checkpoint" or "broadcaster": whether it ranks higher by fan-in or by fan-out among the eligible
    units that carry flow. Ranks, because a late one has many to gather from and few to hand on to anyway."""

    @property
    def excess(self) -> float | None:
        """Flow above what its place alone would carry."""
        return None if self.expected is None else self.flow - self.expected

    @property
    def throughput(self) -> float:
        """tau: inflow plus outflow."""
        return 2 * self.flow

    @property
    def label(self) -> str:
        """What stands there."""
        return self.unit.label

    @property
    def step(self) -> int:
        """The step that it is in; 0 is the prompt."""
        return self.unit.step

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        span = self.unit.span
        return {
            "label": self.label,
            "unit": self.unit.kind,
            "step": self.step,
            "token": self.token,
            "start": span.start,
            "stop": span.stop,
            "flow": self.flow,
            "expected": self.expected,
            "fan_in": self.fan_in,
            "fan_out": self.fan_out,
            "kind": self.kind,
        }

    def __repr__(self) -> str:
        beyond = "" if self.expected is None else f", {self.expected:.1%} by place alone"
        return (
            f"<Hub {self.unit.name} at {self.unit.span.start} in step {self.step}: {self.flow:.1%} of the flow{beyond}>"
        )


class UnitFlow:
    """What a trace says at one level.

    Args:
        trace: The trace.
        level: "tokens", "words" or "steps".

    Raises:
        InputError: No such level.
    """

    def __init__(self, trace: Trace, level: str) -> None:
        self.trace = trace
        self.level = level
        self.units = units(trace, level)
        self._unit_T = np.repeat(np.arange(len(self.units)), [len(unit.span) for unit in self.units])

    @property
    def graph(self) -> TokenGraph:
        """The units with the flow through and between them."""
        return self._merged[0]

    @cached_property
    def _merged(self) -> tuple[TokenGraph, Int[ndarray, " E"]]:
        """The graph, and of every edge that walks take the rank of its edge between units; -1 inside of one."""
        tokens, count = self.trace.token_graph, len(self.units)
        source, target = (self._unit_T[ends] for ends in (tokens.edges.source, tokens.edges.target))
        inside = source == target
        within = np.bincount(source[inside], tokens.edges.flow[inside], count)
        for place, unit in enumerate(self.units):  # of whole steps the trace knows it exactly, whatever edges it kept
            if unit.span == self.trace.step_spans[unit.step]:
                within[place] = self.trace.step_within[unit.step]
        pairs, at = np.unique(source[~inside] * count + target[~inside], return_inverse=True)
        flow = np.bincount(at, tokens.edges.flow[~inside], len(pairs))
        order = np.argsort(-flow, kind="stable")
        graph = TokenGraph(
            edges=Edges(
                source=pairs[order] // count,
                target=pairs[order] % count,
                flow=flow[order],
                complete=tokens.edges.complete,
            ),
            flow=(self._summed(tokens.flow) - within).clip(0, 1),
            source=self._summed(tokens.source),
            sink=self._summed(tokens.sink.astype(np.float64)) > 0,
        )
        return graph, self._ranks_of_walks(pairs, np.argsort(order))

    def _ranks_of_walks(self, pairs: Int[ndarray, " N"], rank: Int[ndarray, " N"]) -> Int[ndarray, " E"]:
        """Of edges that walks take; beyond all ranks where the edge between units was not kept."""
        _, source, target = self._walks
        wanted = source * len(self.units) + target
        place = np.searchsorted(pairs, wanted)
        kept = np.append(pairs, -1)[place] == wanted
        return np.where(source == target, -1, np.where(kept, np.append(rank, 0)[place], len(pairs)))

    @cached_property
    def _walks(self) -> tuple[TokenGraph, Int[ndarray, " E"], Int[ndarray, " E"]]:
        """What walks are a Markov chain on, and of each of its edges the units that it leaves and enters."""
        graph = self.trace.walk_graph
        return graph, self._unit_of(graph.edges.source), self._unit_of(graph.edges.target)

    def _unit_of(self, nodes: Int[ndarray, " N"]) -> Int[ndarray, " N"]:
        """The unit of each token, or of each node of the graph over layers."""
        return self._unit_T[nodes % len(self.trace)]

    def hubs(self, n: int, *, by: str, prompt: bool) -> list[Hub]:
        """The `n` units that rank highest by "flow" or "excess"; the earlier of equals first.

        Raises:
            InputError: No such order, or a trace without a null model that is asked for its excess.
        """
        if by not in ORDERS:
            raise InputError(f"expected hubs by one of {list(ORDERS)}, got {by!r}")
        if by == "excess" and self.trace.expected_flow is None:
            raise InputError("expected a trace with its flow by place alone, got none; trace the rollout again")
        graph = self.graph
        answer, first = answer_span(self.trace), 0 if prompt else self.trace.response.start
        starts = np.array([unit.span.start for unit in self.units])
        eligible = (starts >= first) & ((starts < answer.start) | (starts >= answer.stop)) & ~graph.sink
        carrying = np.flatnonzero(eligible & (graph.flow > 0))
        fan_in, fan_out = self._fans()
        gathers = backbone.gathers(fan_in, fan_out, carrying)
        expected = self._expected(eligible)
        score = graph.flow - expected if by == "excess" and expected is not None else graph.flow
        order = np.argsort(-score[carrying], kind="stable")[:n]
        return [
            Hub(
                unit=self.units[place],
                token=self._heaviest(place),
                flow=float(graph.flow[place]),
                expected=None if expected is None else float(expected[place]),
                fan_in=float(fan_in[place]),
                fan_out=float(fan_out[place]),
                kind="aggregation checkpoint" if gathers[index] else "broadcaster",
            )
            for index, place in ((index, int(carrying[index])) for index in order)
        ]

    def paths(self, k: int) -> list[Path]:
        """The `k` most probable ways from question to answer."""
        if self.level == "tokens":
            found = self._token_paths(k)
        else:
            candidates = backbone.best_paths(self.graph, k * _CANDIDATES)
            swept = [replace(path, share=self._share_along(path.tokens), exact=False) for path in candidates]
            found = sorted(swept, key=lambda path: -path.share)[:k]
        return [
            replace(
                path,
                tokens=tuple(self._heaviest(place) for place in path.tokens),
                units=tuple(self.units[place] for place in path.tokens),
            )
            for path in found
        ]

    def backbone(self, share: float) -> Backbone:
        """The fewest largest edges between units of which a walk uses no other with probability `share`."""
        graph, rank = self._merged
        walks = self._walks[0]
        return backbone.shortest_prefix(
            graph.edges, share, lambda n: backbone.share_along(walks, rank < n, walks.source)
        )

    def _token_paths(self, k: int) -> list[Path]:
        if self.trace.layer_graph is not None:
            return self.trace.layer_graph.paths(k, self.trace.sink.mask(len(self.trace)))
        return backbone.best_paths(self.trace.token_graph, k)

    def _expected(self, eligible: Bool[ndarray, " U"]) -> Float[ndarray, " U"] | None:
        """What a unit as long as the eligible ones on average would carry in the place of each."""
        if self.trace.expected_flow is None or not eligible.any():
            return None
        lengths = np.array([len(unit.span) for unit in self.units])
        return lengths[eligible].mean() / lengths * self._summed(self.trace.expected_flow)

    def _summed(self, values: Float[ndarray, " T"]) -> Float[ndarray, " U"]:
        return np.bincount(self._unit_T, values, len(self.units))

    def _heaviest(self, place: int) -> int:
        span = self.units[place].span
        return span.start + int(np.argmax(self.trace.flow[span.start : span.stop]))

    def _share_along(self, places: tuple[int, ...]) -> float:
        """Probability that a walk passes these units and no others."""
        walks, *ends = self._walks
        rank = np.full(len(self.units), -2)
        rank[list(places)] = np.arange(len(places))
        source, target = (rank[units] for units in ends)
        allowed = (source >= 0) & ((target == source) | (target == source + 1))
        begins = self._unit_of(np.arange(len(walks.flow))) == places[0]
        return backbone.share_along(walks, allowed, np.where(begins, walks.source, 0.0))

    def _fans(self) -> tuple[Float[ndarray, " U"], Float[ndarray, " U"]]:
        if self.level == "tokens":
            return self.trace.fan_in, self.trace.fan_out  # of all edges, kept or not
        edges, count = self.graph.edges, len(self.units)
        return _perplexity(edges.target, edges.flow, count), _perplexity(edges.source, edges.flow, count)


def _perplexity(ends: Int[ndarray, " E"], flow: Float[ndarray, " E"], count: int) -> Float[ndarray, " U"]:
    """Exp of the entropy of the shares that edges have in the flow at their ends; 0 where nothing flows."""
    total = np.bincount(ends, flow, count)
    plogp = np.bincount(ends, flow * np.log(flow), count)
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, np.exp(np.log(safe) - plogp / safe), 0.0)
