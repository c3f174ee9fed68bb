"""Question-to-answer flow over a matrix of attention."""

from flowtracer.flow.edges import EdgeSummary, summarise_edges
from flowtracer.flow.heads import HeadPanelSource, HeadSummary, summarise_heads
from flowtracer.flow.panels import CachedPanels, MatrixPanels
from flowtracer.flow.result import FlowResult, compute_flow, token_graph
from flowtracer.flow.solution import PanelSource, Solution
from flowtracer.flow.solve import DENSE_BYTES, SOLVERS, matrix_bytes, solve, within_budget

__all__ = [
    "DENSE_BYTES",
    "SOLVERS",
    "CachedPanels",
    "EdgeSummary",
    "FlowResult",
    "HeadPanelSource",
    "HeadSummary",
    "MatrixPanels",
    "PanelSource",
    "Solution",
    "compute_flow",
    "matrix_bytes",
    "solve",
    "summarise_edges",
    "summarise_heads",
    "token_graph",
    "within_budget",
]
