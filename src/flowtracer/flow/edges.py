"""A third pass over the panels, once reach and flow are known: edges, fans and step-to-step flow.

One pass serves all four, panel by panel, so no T x T matrix of edge flows ever exists:

1. the largest edges, panel by panel, cut to a limit as often as they fill it twice, so that memory knows no length;
2. effective fan-in of a token, exp of the entropy of the flow along its row;
3. effective fan-out, the same along its column;
4. flow between steps, the sum of token edge flows (`steps.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.flow.largest import LargestEdges
from flowtracer.flow.panels import edge_flow_rows
from flowtracer.flow.solution import PanelSource, Solution, panel_bounds
from flowtracer.flow.steps import STEP_EDGES, StepFlow
from flowtracer.shapes import Float, ndarray
from flowtracer.text.span import Span
from flowtracer.trace.backbone import Edges

MAX_EDGES = 100_000
"""Largest edges of a sequence that are kept where nobody asks for another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSummary:
    """What the edges of one sequence say."""

    edges: Edges
    fan_in: Float[ndarray, " T"]
    """Effective number of tokens that each token gathers from; 0 where nothing flows in along an edge."""
    fan_out: Float[ndarray, " T"]
    """Effective number of tokens that each token hands on to; 0 where nothing flows on."""
    step_edges: Edges
    """Largest flows between different steps, each the sum over all edges from the one's tokens to the other's."""
    step_within: Float[ndarray, " S"]
    """Flow along edges inside of each step."""


def summarise_edges(
    panels: PanelSource,
    solution: Solution,
    *,
    max_edges: int,
    steps: Sequence[Sequence[Span]] | None = None,
    max_step_edges: int = STEP_EDGES,
) -> list[EdgeSummary]:
    """Edges, fans and step flow of every sequence of a batch.

    Args:
        panels: What the solution was computed from.
        solution: Reach and flow of the batch.
        max_edges: Largest edges that are kept.
        steps: Spans that tile each sequence; None: each sequence is one step.
        max_step_edges: Largest edges between steps that are kept.
    """
    flows = EdgeFlows(solution.flow_BT, max_edges=max_edges, steps=steps, max_step_edges=max_step_edges)
    needed = int(solution.answer_BT.any(0).nonzero().max()) + 1
    for start, stop in panel_bounds(needed, panels.panel_rows):
        flows.add(edge_flow_rows(panels, solution, start, stop), start)
    return flows.summaries()


class EdgeFlows:
    """What the edge flow of a batch says, gathered from panels of its rows, which come in order.

    Args:
        like_BT: For the shape, type and device.
        max_edges: Largest edges that are kept.
        steps: Spans that tile each sequence; None: each sequence is one step.
        max_step_edges: Largest edges between steps that are kept.
    """

    def __init__(
        self,
        like_BT: Float[Tensor, "B T"],
        *,
        max_edges: int,
        steps: Sequence[Sequence[Span]] | None,
        max_step_edges: int = STEP_EDGES,
    ) -> None:
        batch, length = like_BT.shape
        self._fan_in_BT, self._out_sum_BT, self._out_plogp_BT = like_BT.new_zeros(3, batch, length)
        self._largest = [LargestEdges(max_edges) for _ in range(batch)]
        self._between = [StepFlow(spans, max_step_edges) for spans in steps or batch * [[Span(start=0, stop=length)]]]

    def add(self, phi_BPC: Float[Tensor, "B P C"], start: int) -> None:
        """Edge flow into the tokens from `start` on."""
        rows, stop = slice(start, start + phi_BPC.shape[1]), phi_BPC.shape[2]
        plogp_BPC = torch.special.entr(phi_BPC).neg_()
        self._fan_in_BT[:, rows] = _perplexity(phi_BPC.sum(2), plogp_BPC.sum(2))
        self._out_sum_BT[:, :stop] += phi_BPC.sum(1)
        self._out_plogp_BT[:, :stop] += plogp_BPC.sum(1)
        for phi_PC, kept, flows in zip(phi_BPC, self._largest, self._between, strict=True):
            kept.add(phi_PC, start)
            flows.add(phi_PC, start)

    def summaries(self) -> list[EdgeSummary]:
        """One a sequence, when all panels were added."""
        fan_out_BT = _perplexity(self._out_sum_BT, self._out_plogp_BT)
        return [
            EdgeSummary(
                edges=largest.edges(),
                fan_in=fan_in_T.double().cpu().numpy(),
                fan_out=fan_out_T.double().cpu().numpy(),
                step_edges=between.edges(),
                step_within=between.within,
            )
            for largest, between, fan_in_T, fan_out_T in zip(
                self._largest, self._between, self._fan_in_BT, fan_out_BT, strict=True
            )
        ]


def _perplexity(total: Tensor, plogp: Tensor) -> Tensor:
    """Exp of the entropy of shares `p / total`, from the sums of `p` and of `p log p`."""
    return torch.where(total > 0, (total.log() - plogp / total).exp(), 0.0)
