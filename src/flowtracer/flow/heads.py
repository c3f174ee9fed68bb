"""A last pass over the attention of single heads, once flow and the largest edges are known.

`W` is the mean of many heads, so the flow on an edge is a sum of what each head gives: head `h` of group `g` (a layer)
gives the share `a_gh[k,i] / sum a[k,i]` of `phi(i->k)`. One pass, a panel of one group at a time, yields both

1. the heads that give most to each kept edge, with their shares, gathered where the panel holds the edge;
2. the flow of each head over *all* edges: `sum_{k,i} h(k) a_gh[k,i] u(i)` over the number of heads, as in (4').

No map of a head outlives its panel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flowtracer.flow.panels import edge_flow_scale
from flowtracer.flow.solution import Solution, panel_bounds
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.trace.backbone import Edges


@runtime_checkable
class HeadPanelSource(Protocol):
    """Attention of single heads, a slab of rows at a time; their mean over all heads of all groups is `W`."""

    @property
    def panel_rows(self) -> int:
        """Rows of a panel that suit this source."""
        ...

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Heads of each group."""
        ...

    def head_rows(self, start: int, stop: int) -> Iterator[Float[Tensor, "B H P C"]]:
        """Rows `start..stop` over columns `0..stop` of each group in turn; on and above the diagonal is ignored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSummary:
    """What the heads give to the flow of one sequence."""

    edge_heads: Int[ndarray, "E N 2"]
    """Group, and head within it, of the heads that give most to each edge, the largest first."""
    edge_head_shares: Float[ndarray, "E N"]
    """Share of the edge's capacity that each of them gives."""
    head_flow: tuple[Float[ndarray, " _"], ...]
    """Flow along all edges by head, for each group; together the sum of all edge flows."""


def summarise_heads(
    source: HeadPanelSource, solution: Solution, edges: Sequence[Edges], *, heads_per_edge: int = 3
) -> list[HeadSummary]:
    """Heads of every sequence of a batch.

    Args:
        source: Attention by head.
        solution: Reach and flow of the batch.
        edges: The kept edges of each sequence.
        heads_per_edge: How many heads to name for an edge; fewer where there are fewer heads.
    """
    total_heads = sum(source.head_counts)
    named = min(heads_per_edge, total_heads)
    batch = len(solution.answer_BT)
    needed = int(solution.answer_BT.any(0).nonzero().max()) + 1
    # Where attention is NaN, what is called an edge may be none.
    valid = [kept if ok else kept.top(0) for kept, ok in zip(edges, solution.finite_B.tolist(), strict=True)]
    by_target = [_EdgesByTarget(kept, needed) for kept in valid]
    flow_BH = solution.log_reach_BT.new_zeros(batch, total_heads)
    index = [torch.zeros(len(kept), named, dtype=torch.long) for kept in edges]
    share = [torch.zeros(len(kept), named) for kept in edges]
    for start, stop in panel_bounds(needed, source.panel_rows):
        scale_BPC = edge_flow_scale(solution, start, stop).tril_(start - 1)
        cells = [kept.in_panel(start, stop) for kept in by_target]
        first = 0
        gathered: list[list[Tensor]] = [[] for _ in edges]
        for weights_BHPC in source.head_rows(start, stop):
            here = slice(first, first := first + weights_BHPC.shape[1])
            flat_BHX = weights_BHPC.flatten(2)
            largest_scale = torch.finfo(flat_BHX.dtype).max  # beyond it 0 * inf would be NaN
            scale_BX1 = scale_BPC.flatten(1)[:, :, None].clamp_max(largest_scale).to(flat_BHX)
            flow_BH[:, here] += (flat_BHX @ scale_BX1).squeeze(-1).to(flow_BH)
            for b, (_, cell_E) in enumerate(cells):
                gathered[b].append(flat_BHX[b].index_select(1, cell_E.to(flat_BHX.device)).cpu().float())
        for b, (positions_E, _) in enumerate(cells):
            weights_HE = torch.cat(gathered[b])
            largest = weights_HE.T.topk(named)
            index[b][positions_E] = largest.indices
            share[b][positions_E] = largest.values / weights_HE.sum(0)[:, None]
    group_H = torch.tensor([(g, h) for g, count in enumerate(source.head_counts) for h in range(count)])
    return [
        HeadSummary(
            edge_heads=group_H[index[b]].numpy(),
            edge_head_shares=share[b].numpy(),
            head_flow=tuple(part.numpy() for part in (flow_BH[b] / total_heads).cpu().split(list(source.head_counts))),
        )
        for b in range(batch)
    ]


class _EdgesByTarget:
    """Edges in the order of their targets, so that a panel finds its own."""

    def __init__(self, edges: Edges, needed: int) -> None:
        self._order = torch.from_numpy(edges.target.argsort(kind="stable"))
        self._source = torch.from_numpy(edges.source)[self._order]
        self._target = torch.from_numpy(edges.target)[self._order]
        self._first = torch.searchsorted(self._target, torch.arange(needed + 1))

    def in_panel(self, start: int, stop: int) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"]]:
        """Positions of the edges into rows `start..stop`, and their cells in a panel over columns `0..stop`."""
        here = slice(int(self._first[start]), int(self._first[stop]))
        return self._order[here], (self._target[here] - start) * stop + self._source[here]
