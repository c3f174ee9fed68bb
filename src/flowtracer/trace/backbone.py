"""What carries the flow: edges, paths and hubs of a graph on tokens, in numpy, without torch.

Everything here starts from edge flows `phi(i->k)`, edges given largest first. Under the answer-conditioned capacity a
walk from source to sink is a Markov chain that steps from `i` to `k` with probability `phi(i->k) / f(i)`, so

1. the *share* of a set of edges is the probability that a walk uses no other edge: one forward sweep over the set;
2. the *backbone* is the shortest prefix of the edges whose share reaches a stated one: shares grow with the prefix,
   so a bisection finds it;
3. the most probable *paths* are exact by dynamic programming, the best few ways into every token in turn. A path is
   no more probable than the flow on any of its edges, so paths found on a prefix are exact for the whole graph as
   long as they outweigh the prefix's smallest edge;
4. *hubs* are the tokens of highest throughput, with their effective fan-in and fan-out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int, ndarray


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
        return Edges(
            source=self.source[:n],
            target=self.target[:n],
            flow=self.flow[:n],
            complete=self.complete and n >= len(self),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One walk from the question to the answer."""

    tokens: tuple[int, ...]
    share: float
    """Probability of this very walk."""
    exact: bool
    """Whether no path outside the edges that were kept can be more probable."""
    layers: tuple[int, ...] = ()
    """Over layers, the decoder layer of each step from token to token; over tokens none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A token of high throughput."""

    token: int
    throughput: float
    fan_in: float
    """Effective number of tokens it gathers from: exp of the entropy of its inflow."""
    fan_out: float
    """Effective number of tokens it hands on to: exp of the entropy of its outflow."""

    kind: str
    """"aggregation checkpoint" or "broadcaster": whether it ranks higher by fan-in or by fan-out among the eligible
    tokens that carry flow. Ranks, because a late token has many to gather from and few to hand on to anyway."""


def kept_share(graph: TokenGraph, n: int) -> float:
    """Probability that a walk uses only the `n` largest edges."""
    kept = graph.source.astype(np.float64)
    onward = _reciprocal(graph.flow)
    for target, sources, flows in _by_target(graph.edges.top(n)):
        kept[target] += (kept[sources] * onward[sources]) @ flows
    return float(kept[graph.sink].sum())


def backbone(graph: TokenGraph, share: float) -> Backbone:
    """The fewest largest edges of which a walk uses no other with probability `share`."""
    if not 0 < share <= 1:
        raise InputError(f"expected a share of the flow in (0, 1], got {share}")
    # Shares of 1 are met up to the rounding of the flows themselves.
    wanted = share - 1e-6
    low, high = 0, len(graph.edges)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if kept_share(graph, middle) >= wanted else (middle + 1, high)
    return Backbone(edges=graph.edges.top(low), share=kept_share(graph, low))


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


def top_hubs(
    n: int,
    throughput: Float[ndarray, " T"],
    fan_in: Float[ndarray, " T"],
    fan_out: Float[ndarray, " T"],
    eligible: Bool[ndarray, " T"],
) -> list[Hub]:
    """The `n` eligible tokens of highest throughput; the earlier of two equal ones first."""
    carrying = np.flatnonzero(eligible & (throughput > 0))
    gathers = _ranks(fan_in[carrying]) >= _ranks(fan_out[carrying])
    order = np.argsort(-throughput[carrying], kind="stable")[:n]
    return [
        Hub(
            token=int(carrying[index]),
            throughput=float(throughput[carrying[index]]),
            fan_in=float(fan_in[carrying[index]]),
            fan_out=float(fan_out[carrying[index]]),
            kind="aggregation checkpoint" if gathers[index] else "broadcaster",
        )
        for index in order
    ]


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
