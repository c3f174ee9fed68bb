"""A third pass over the layers' panels, once the walks are known: edges between tokens, and between nodes.

1. Between tokens, flow is summed over layers; of it come the largest edges, fans and flow between steps, as over
   tokens.
2. Between nodes (token, place between layers), the largest edges are kept with the ones that stay at their token:
   summed over layers the walks are no Markov chain, so paths and shares are read off these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowtracer.flow.edges import EdgeFlows, EdgeSummary
from flowtracer.flow.largest import LargestEdges
from flowtracer.flow.layered import LayeredSolution, layer_edge_flow
from flowtracer.flow.solution import LayerPanelSource, panel_bounds
from flowtracer.text.span import Span
from flowtracer.trace.layered import LayerGraph


def summarise_layered_edges(
    panels: LayerPanelSource,
    solution: LayeredSolution,
    *,
    layers: Sequence[int],
    max_edges: int,
    steps: Sequence[Sequence[Span]] | None = None,
) -> list[tuple[EdgeSummary, LayerGraph]]:
    """Edges between tokens and between nodes, of every sequence of a batch.

    Args:
        panels: What the solution was computed from.
        solution: The walks of the batch.
        layers: The decoder layers' own numbers.
        max_edges: Largest edges that are kept, of each kind.
        steps: Spans that tile each sequence; None: each sequence is one step.
    """
    flows = EdgeFlows(solution.flow_BT, max_edges=max_edges, steps=steps)
    nodes = [LargestEdges(max_edges) for _ in range(panels.batch)]
    needed = int(solution.answer_BT.any(0).nonzero().max()) + 1
    for start, stop in panel_bounds(needed, panels.panel_rows):
        total_BPC: Tensor | None = None
        for layer in range(panels.layers):
            phi_BPC, stays_BP = layer_edge_flow(panels, solution, layer, start, stop)
            total_BPC = phi_BPC.clone() if total_BPC is None else total_BPC.add_(phi_BPC)
            phi_BPC[:, :, start:].diagonal(dim1=1, dim2=2).add_(stays_BP)
            for phi_PC, kept in zip(phi_BPC, nodes, strict=True):
                kept.add(phi_PC, (layer + 1) * panels.length + start, layer * panels.length)
        if total_BPC is not None:
            flows.add(total_BPC, start)
    flow_BNT = solution.layer_flow_NBT.transpose(0, 1).to("cpu", torch.float64).numpy()
    return [
        (summary, LayerGraph(edges=kept.edges(), flow=flow_NT, layers=tuple(layers)))
        for summary, kept, flow_NT in zip(flows.summaries(), nodes, flow_BNT, strict=True)
    ]
