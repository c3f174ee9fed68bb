"""Question-to-answer flow over a matrix of attention, or over one a layer."""

from flowtracer.flow.edges import EdgeSummary, summarise_edges
from flowtracer.flow.heads import HeadPanelSource, HeadSummary, summarise_heads
from flowtracer.flow.layer_panels import CachedLayers, LayerMatrices, layers_within_budget
from flowtracer.flow.layered import LayeredSolution, solve_layered
from flowtracer.flow.layered_edges import summarise_layered_edges
from flowtracer.flow.panels import CachedPanels, MatrixPanels
from flowtracer.flow.result import FlowResult, compute_flow, token_graph
from flowtracer.flow.solution import LayerPanelSource, PanelSource, Solution
from flowtracer.flow.solve import DENSE_BYTES, SOLVERS, matrix_bytes, solve, within_budget

__all__ = [
    "DENSE_BYTES",
    "SOLVERS",
    "CachedLayers",
    "CachedPanels",
    "EdgeSummary",
    "FlowResult",
    "HeadPanelSource",
    "HeadSummary",
    "LayerMatrices",
    "LayerPanelSource",
    "LayeredSolution",
    "MatrixPanels",
    "PanelSource",
    "Solution",
    "compute_flow",
    "layers_within_budget",
    "matrix_bytes",
    "solve",
    "solve_layered",
    "summarise_edges",
    "summarise_heads",
    "summarise_layered_edges",
    "token_graph",
    "within_budget",
]
