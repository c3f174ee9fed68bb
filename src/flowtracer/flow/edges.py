"""A third pass over the panels, once reach and flow are known: edges, fans and step-to-step flow.

One pass serves all four, panel by panel, so no T x T matrix of edge flows ever exists:

1. the largest edges, panel by panel, cut to a limit as often as they fill it twice, so that memory knows no length;
2. effective fan-in of a token, exp of the entropy of the flow along its row;
3. effective fan-out, the same along its column;
4. flow between steps, the sum of token edge flows, exact by linearity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowtracer.flow.panels import edge_flow_rows
from flowtracer.flow.solution import PanelSource, Solution, panel_bounds
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.trace.backbone import Edges


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSummary:
    """What the edges of one sequence say."""

    edges: Edges
    fan_in: Float[ndarray, " T"]
    """Effective number of tokens that each token gathers from; 0 where nothing flows in along an edge."""
    fan_out: Float[ndarray, " T"]
    """Effective number of tokens that each token hands on to; 0 where nothing flows on."""
    step_flow: Float[ndarray, "S S"]
    """[i, j]: flow along edges from a token of step i to a token of step j."""


def summarise_edges(
    panels: PanelSource,
    solution: Solution,
    *,
    max_edges: int,
    steps_BT: Int[Tensor, "B T"] | None = None,
) -> list[EdgeSummary]:
    """Edges, fans and step flow of every sequence of a batch; `steps_BT` numbers the step of each token from 0."""
    batch, length = solution.answer_BT.shape
    needed = int(solution.answer_BT.any(0).nonzero().max()) + 1
    steps_BT = torch.zeros_like(solution.answer_BT, dtype=torch.long) if steps_BT is None else steps_BT
    membership_BTS = torch.nn.functional.one_hot(steps_BT).to(solution.log_reach_BT.dtype)
    fan_in_BT, out_sum_BT, out_plogp_BT = solution.log_reach_BT.new_zeros(3, batch, length)
    step_flow_BSS = membership_BTS.new_zeros(batch, *2 * [membership_BTS.shape[-1]])
    largest = [_LargestEdges(max_edges) for _ in range(batch)]
    carrying_B = torch.zeros(batch, dtype=torch.long, device=panels.device)
    for start, stop in panel_bounds(needed, panels.panel_rows):
        phi_BPC = edge_flow_rows(panels, solution, start, stop)
        plogp_BPC = torch.special.entr(phi_BPC).neg_()
        fan_in_BT[:, start:stop] = _perplexity(phi_BPC.sum(2), plogp_BPC.sum(2))
        out_sum_BT[:, :stop] += phi_BPC.sum(1)
        out_plogp_BT[:, :stop] += plogp_BPC.sum(1)
        step_flow_BSS += membership_BTS[:, :stop].mT @ phi_BPC.mT @ membership_BTS[:, start:stop]
        carrying_B += (phi_BPC > 0).sum((1, 2))
        for b in range(batch):
            largest[b].add(phi_BPC[b], start)
    fan_out_BT = _perplexity(out_sum_BT, out_plogp_BT)
    return [
        EdgeSummary(
            edges=largest[b].edges(complete=int(carrying_B[b]) <= max_edges),
            fan_in=fan_in_BT[b].double().cpu().numpy(),
            fan_out=fan_out_BT[b].double().cpu().numpy(),
            step_flow=step_flow_BSS[b].double().cpu().numpy(),
        )
        for b in range(batch)
    ]


def _perplexity(total: Tensor, plogp: Tensor) -> Tensor:
    """Exp of the entropy of shares `p / total`, from the sums of `p` and of `p log p`."""
    return torch.where(total > 0, (total.log() - plogp / total).exp(), 0.0)


class _LargestEdges:
    """The largest edges of a sequence so far, and how large an edge must be to be one of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Tensor] = []
        self._count = 0
        self._floor = 0.0

    def add(self, phi_PC: Float[Tensor, "P C"], start: int) -> None:
        """Offer a panel of rows from `start` on."""
        flat = phi_PC.flatten()
        found = flat.nonzero().squeeze(-1) if self._floor == 0 else (flat > self._floor).nonzero().squeeze(-1)
        if len(found) > self._limit:
            found = flat.topk(self._limit, sorted=False).indices
        columns = phi_PC.shape[1]
        # Float64 holds every token index exactly.
        self._kept.append(
            torch.stack([(found % columns).to(flat.dtype), (found // columns + start).to(flat.dtype), flat[found]])
        )
        self._count += len(found)
        if self._count > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        kept = torch.cat(self._kept, 1)
        kept = kept[:, kept[2].topk(self._limit).indices] if self._limit else kept[:, :0]
        self._kept, self._count = [kept], self._limit
        self._floor = float(kept[2, -1]) if self._limit else torch.inf

    def edges(self, *, complete: bool) -> Edges:
        """The largest first."""
        source, target, flow = torch.cat(self._kept, 1).cpu().numpy()
        order = np.argsort(-flow, kind="stable")[: self._limit]
        return Edges(
            source=source[order].astype(np.int64),
            target=target[order].astype(np.int64),
            flow=flow[order].astype(np.float64),
            complete=complete,
        )
