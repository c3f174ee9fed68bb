"""The graph over tokens and layers, of which a trace over layers reads its backbone and its paths.

A node is a token at a place between layers: place 0 is below the first layer that was read, place `L` above the last.
Node `place * T + token`, so every edge runs to a larger number, and what `backbone.py` says of a graph on tokens holds
for this one as it stands. An edge through a layer either stays at its token or runs to a later one. Summed over
layers the walks are no Markov chain: shares and paths must be read off here, and only then told by tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from flowtracer.shapes import Bool, Float, ndarray
from flowtracer.trace import backbone
from flowtracer.trace.backbone import Backbone, Edges, Path, TokenGraph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays have no one truth value
class LayerGraph:
    """Flow between nodes, as far as it was kept."""

    edges: Edges
    """Largest edges between nodes, those that stay at a token among them."""
    flow: Float[ndarray, "N T"]
    """f of every token at every place; each place's sums to 1."""
    layers: tuple[int, ...]
    """Decoder layers, from the first on; layer `layers[n]` lies between places `n` and `n + 1`."""

    def of_length(self, length: int) -> LayerGraph:
        """The same over so many tokens: padding that carries nothing is cut off or added."""
        old = self.flow.shape[1]
        flow = np.zeros((len(self.flow), length))
        flow[:, : min(old, length)] = self.flow[:, :length]
        source, target = (node // old * length + node % old for node in (self.edges.source, self.edges.target))
        return replace(self, flow=flow, edges=replace(self.edges, source=source, target=target))

    def backbone(self, share: float, sink: Bool[ndarray, " T"]) -> Backbone:
        """The fewest largest edges between nodes that carry `share`, told as edges between tokens."""
        found = backbone.backbone(self.nodes(sink), share)
        return Backbone(edges=self._by_token(found.edges), share=found.share)

    def paths(self, k: int, sink: Bool[ndarray, " T"]) -> list[Path]:
        """The `k` most probable walks, each with the layers that it moves in."""
        return [self._told(path) for path in backbone.best_paths(self.nodes(sink), k)]

    def share_through(self, tokens: list[int], sink: Bool[ndarray, " T"]) -> float:
        """Probability that a walk is ever at one of `tokens`; a lower bound where edges were cut."""
        places, length = self.flow.shape
        nodes = [place * length + token for place in range(places) for token in tokens]
        return backbone.share_through(self.nodes(sink), nodes)

    def nodes(self, sink: Bool[ndarray, " T"]) -> TokenGraph:
        """The graph on nodes, as `backbone.py` reads it."""
        source, end = np.zeros(self.flow.shape), np.zeros(self.flow.shape, dtype=bool)
        source[0], end[-1] = self.flow[0], sink
        return TokenGraph(edges=self.edges, flow=self.flow.ravel(), source=source.ravel(), sink=end.ravel())

    def _by_token(self, edges: Edges) -> Edges:
        length = self.flow.shape[1]
        source, target = edges.source % length, edges.target % length
        moves = source != target
        pairs, place = np.unique(source[moves] * length + target[moves], return_inverse=True)
        flow = np.bincount(place, edges.flow[moves], len(pairs))
        order = np.argsort(-flow, kind="stable")
        return Edges(
            source=pairs[order] // length, target=pairs[order] % length, flow=flow[order], complete=edges.complete
        )

    def _told(self, path: Path) -> Path:
        length = self.flow.shape[1]
        tokens = [node % length for node in path.tokens]
        moves = [place for place, (one, other) in enumerate(pairwise(tokens)) if one != other]
        return Path(
            tokens=(tokens[0], *(tokens[place + 1] for place in moves)),
            share=path.share,
            exact=path.exact,
            layers=tuple(self.layers[place] for place in moves),
        )
