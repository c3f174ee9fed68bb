"""What carries the flow: edges and paths of a graph on tokens, in numpy, without torch.

Everything here starts from edge flows `phi(i->k)`, edges given largest first. Under the answer-conditioned capacity a
walk from source to sink is a Markov chain that steps from `i` to `k` with probability `phi(i->k) / f(i)`, so

1. the *share* of a set of edges is the probability that a walk uses no other edge: one forward sweep over the set;
2. the *backbone* is the shortest prefix of the edges whose share reaches a stated one: shares grow with the prefix,
   so a bisection finds it;
3. the most probable *paths* are exact by dynamic programming, the best few ways into every token in turn. A path is
   no more probable than the flow on any of its edges, so paths found on a prefix are exact for the whole graph as
   long as they outweigh the prefix's smallest edge;
4. the share *through* tokens is the probability that a walk passes any of them: it is counted where it first does.

A token gathers or broadcasts by its effective fan-in and fan-out. Graphs on words and steps are read alike
(`unit_flow.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int, ndarray
from flowtracer.trace.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays have no one truth value
class Edges:
    """Edges of largest flow, in falling order of flow."""

    source: Int[ndarray, " E"]
    """Token that is attended to."""
    target: Int[ndarray, " E"]
    """Token that attends; always later than its source."""
    flow: Float[ndarray, " E"]
    """phi(source -> target), a share of the unit that runs from question to answer."""
    complete: bool
    """Whether these are all the edges that carry flow."""

    def __len__(self) -> int:
        return len(self.flow)

    def top(self, n: int) -> Edges:
        """The `n` largest."""
        return self.chosen(np.arange(len(self)) < n)

    def chosen(self, which: Bool[ndarray, " E"]) -> Edges:
        """Those that are marked, in the same order."""
        return Edges(
            source=self.source[which],
            target=self.target[which],
            flow=self.flow[which],
            complete=self.complete and bool(which.all()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGraph:
    """The sparse graph that backbone and paths are read from."""

    edges: Edges
    flow: Float[ndarray, " T"]
    """f of every token."""
    source: Float[ndarray, " T"]
    """s, what enters from the source at every token."""
    sink: Bool[ndarray, " T"]
    """Tokens that feed only the sink: the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """The fewest largest edges that together carry a share of the flow."""

    edges: Edges
    share: float
    """Probability that a walk from question to answer uses these edges only; below what was asked for only where the
    graph holds no more edges."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Path:
    """One way from the question to the answer."""

    tokens: tuple[int, ...]
    """Where it passes: its tokens; of a way through longer units, the token of each that carries most."""
    share: float
    """Probability of this very way."""
    exact: bool
    """Whether it is known that no other way, kept edges or not, is more probable."""
    units: tuple[Unit, ...] = ()
    """What it passes, by name, place and step; none where the graph has no text."""
    layers: tuple[int, ...] = ()
    """Of a walk over layers, the decoder layer of each step from token to token; else none."""

    @property
    def way(self) -> str:
        """What it passes, by name, words with the step that they are in; by number where it has no units."""
        return " → ".join(unit.told for unit in self.units) or " → ".join(map(str, self.tokens))

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        units = [
            {"label": unit.name, "unit": unit.kind, "step": unit.step, "start": unit.span.start, "stop": unit.span.stop}
            for unit in self.units
        ]
        return {
            "tokens": list(self.tokens),
            "share": self.share,
            "exact": self.exact,
            "way": self.way,
            "units": units,
        }

    def __repr__(self) -> str:
        return f"<Path {self.share:.1%}: {self.way}>"


def kept_share(graph: TokenGraph, n: int) -> float:
    """Probability that a walk uses only the `n` largest edges."""
    return share_along(graph, np.arange(len(graph.edges)) < n, graph.source)


def share_along(graph: TokenGraph, allowed: Bool[ndarray, " E"], source: Float[ndarray, " T"]) -> float:
    """Probability that a walk begins where `source` says, with what it says, and uses allowed edges only."""
    arrived = source.astype(np.float64)
    onward = _reciprocal(graph.flow)
    for target, sources, flows in _by_target(graph.edges.chosen(allowed)):
        arrived[target] += (arrived[sources] * onward[sources]) @ flows
    return float(arrived[graph.sink].sum())


def backbone(graph: TokenGraph, share: float) -> Backbone:
    """The fewest largest edges of which a walk uses no other with probability `share`."""
    return shortest_prefix(graph.edges, share, lambda n: kept_share(graph, n))


def shortest_prefix(edges: Edges, share: float, kept: Callable[[int], float]) -> Backbone:
    """The fewest largest edges whose share reaches `share`; `kept` says what the `n` largest keep."""
    if not 0 < share <= 1:
        raise InputError(f"expected a share of the flow in (0, 1], got {share}")
    # Shares of 1 are met up to the rounding of the flows themselves.
    wanted = share - 1e-6
    low, high = 0, len(edges)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if kept(middle) >= wanted else (middle + 1, high)
    return Backbone(edges=edges.top(low), share=kept(low))


def best_paths(graph: TokenGraph, k: int) -> list[Path]:
    """The `k` most probable walks from source to sink, most probable first; fewer where fewer exist."""
    if k < 1:
        raise InputError(f"expected at least one path, got k={k}")
    length = len(graph.flow)
    with np.errstate(divide="ignore"):
        log_source, log_onward = np.log(graph.source), np.log(_reciprocal(graph.flow))
        log_flow = np.log(graph.edges.flow)
    # best[t, j]: log-probability of the j-th best way into t, which came by came_from[t, j] (-1: from the source).
    best = np.full((length, k), -np.inf)
    best[:, 0] = log_source
    came_from = np.full((length, k, 2), -1, dtype=np.int64)
    for target, sources, positions in _by_target(graph.edges, positions=True):
        step = log_flow[positions] + log_onward[sources]
        ways = np.concatenate([best[target, :1], (best[sources] + step[:, None]).ravel()])
        order = _largest(ways, k)
        best[target, : len(order)] = ways[order]
        came_from[target, : len(order), 0] = np.where(order > 0, sources[(order - 1) // k], -1)
        came_from[target, : len(order), 1] = (order - 1) % k
    ends = np.flatnonzero(graph.sink)
    smallest = 0.0 if graph.edges.complete or not len(graph.edges) else float(graph.edges.flow[-1])
    found = []
    for index in _largest(best[ends].ravel(), k):
        share = float(np.exp(best[ends].ravel()[index]))
        if share > 0:
            tokens = _walk_back(came_from, int(ends[index // k]), int(index % k))
            found.append(Path(tokens=tokens, share=share, exact=share >= smallest))
    return found


def share_through(graph: TokenGraph, tokens: list[int]) -> float:
    """Probability that a walk passes any of `tokens`; a lower bound where the graph lacks edges."""
    stops = np.zeros(len(graph.flow), dtype=bool)
    stops[tokens] = True
    # A walk that has met one of the tokens is counted there and goes no further.
    arriving = graph.source.astype(np.float64)
    onward = np.where(stops, 0.0, _reciprocal(graph.flow))
    for target, sources, flows in _by_target(graph.edges):
        arriving[target] += (arriving[sources] * onward[sources]) @ flows
    return float(arriving[stops].sum())


def gathers(
    fan_in: Float[ndarray, " T"], fan_out: Float[ndarray, " T"], carrying: Int[ndarray, " N"]
) -> Bool[ndarray, " N"]:
    """Which of the tokens rank at least as high by fan-in as by fan-out among each other."""
    return _ranks(fan_in[carrying]) >= _ranks(fan_out[carrying])


def _ranks(values: Float[ndarray, " N"]) -> Int[ndarray, " N"]:
    """How many values are smaller; equal values share a rank."""
    return np.searchsorted(np.sort(values), values)


def _reciprocal(values: Float[ndarray, " T"]) -> Float[ndarray, " T"]:
    """1 / x, and 0 for 0: tokens without flow hand nothing on."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)


def _by_target(edges: Edges, *, positions: bool = False) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Every target in ascending order with the sources of its edges and their flows (or their positions)."""
    order = np.argsort(edges.target, kind="stable")
    targets, starts = np.unique(edges.target[order], return_index=True)
    stops = np.append(starts, len(order))[1:]
    for target, start, stop in zip(targets, starts, stops, strict=True):
        members = order[start:stop]
        yield int(target), edges.source[members], members if positions else edges.flow[members]


def _largest(values: Float[ndarray, " N"], k: int) -> Int[ndarray, " K"]:
    """Indices of the `k` largest values, largest first."""
    if len(values) > k:
        candidates = np.argpartition(-values, k - 1)[:k]
        return candidates[np.argsort(-values[candidates], kind="stable")]
    return np.argsort(-values, kind="stable")


def _walk_back(came_from: Int[ndarray, "T K 2"], token: int, rank: int) -> tuple[int, ...]:
    """Tokens of a way into `token`, in reading order."""
    tokens = [token]
    while (previous := int(came_from[token, rank, 0])) >= 0:
        token, rank = previous, int(came_from[token, rank, 1])
        tokens.append(token)
    return tuple(reversed(tokens))
