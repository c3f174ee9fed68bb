"""Question-to-answer flow over a matrix of attention: the only place that chooses an implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowtracer import backbone
from flowtracer.backbone import Backbone, Edges, Path, TokenGraph
from flowtracer.errors import InputError
from flowtracer.flow import panels as _panels
from flowtracer.flow import reference as _reference
from flowtracer.flow.edges import EdgeSummary, summarise_edges
from flowtracer.flow.heads import HeadPanelSource, HeadSummary, summarise_heads
from flowtracer.flow.panels import CachedPanels, MatrixPanels
from flowtracer.flow.solution import PanelSource, Solution
from flowtracer.shapes import Float

__all__ = [
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

DENSE_BYTES = 2 * 2**30
"""Up to this size the matrix is kept between the sweeps; beyond it, every sweep recomputes its panels."""

Solver = Callable[[PanelSource, Tensor, Tensor], Solution]
SOLVERS: dict[str, Solver] = {"panels": _panels.solve, "reference": _reference.solve}


def solve(panels: PanelSource, question_BT: Tensor, answer_BT: Tensor, *, implementation: str = "auto") -> Solution:
    """Reach and flow of a batch, over stored or recomputed panels alike.

    Args:
        panels: Rows of the capacity matrix, for instance `MatrixPanels(attention_BTT)`.
        question_BT: Boolean, tokens that the flow starts from.
        answer_BT: Boolean, tokens that the flow ends in.
        implementation: "auto", or a key of `SOLVERS`.

    Raises:
        InputError: Masks of another shape or type, or no answer token in the whole batch.
    """
    shape = (panels.batch, panels.length)
    for name, mask in (("question", question_BT), ("answer", answer_BT)):
        if mask.dtype != torch.bool or tuple(mask.shape) != shape:
            raise InputError(
                f"expected the {name} mask as booleans of shape {shape}, got {mask.dtype} of shape {tuple(mask.shape)}"
            )
    name = "panels" if implementation == "auto" else implementation
    if name not in SOLVERS:
        raise InputError(f"expected an implementation among {['auto', *SOLVERS]}, got {implementation!r}")
    return SOLVERS[name](panels, question_BT.to(panels.device), answer_BT.to(panels.device))


def within_budget(panels: PanelSource, budget: int = DENSE_BYTES) -> PanelSource:
    """Keep the matrix between the sweeps where its lower triangle fits the budget in bytes, else recompute it."""
    return CachedPanels(panels) if matrix_bytes(panels.batch, panels.length) <= budget else panels


def matrix_bytes(batch: int, length: int) -> int:
    """What the lower triangles of a batch take in float32."""
    return 2 * batch * length**2


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResult:
    """Flow over one sequence, with the matrix it was computed from."""

    panels: PanelSource
    solution: Solution

    @property
    def reach_T(self) -> Float[Tensor, " T"]:
        """h, equation (2): expected visits of backward attention walks from the answer."""
        return self.solution.reach_BT[0]

    @property
    def flow_T(self) -> Float[Tensor, " T"]:
        """f, equation (4): share of the question-to-answer flow that passes through each token."""
        return self.solution.flow_BT[0]

    @property
    def throughput_T(self) -> Float[Tensor, " T"]:
        """tau, equation (5): inflow plus outflow."""
        return self.solution.throughput_BT[0]

    def edge_flow(self, i: int, k: int) -> float:
        """Flow along the edge from token `i` to the later token `k`; 0 where there is none."""
        length = self.panels.length
        if not (0 <= i < length and 0 <= k < length):
            raise InputError(f"expected tokens within 0..{length - 1}, got i={i}, k={k}")
        return float(_panels.edge_flow_rows(self.panels, self.solution, k, k + 1)[0, 0, i]) if i < k else 0.0

    def top_edges(self, n: int) -> Edges:
        """The `n` edges of largest flow, largest first."""
        return summarise_edges(self.panels, self.solution, max_edges=n)[0].edges

    def backbone(self, share: float = 0.5) -> Backbone:
        """The fewest largest edges that carry `share` of the flow by themselves."""
        return backbone.backbone(self._graph(), share)

    def paths(self, k: int = 5) -> list[Path]:
        """The `k` most probable walks from question to answer."""
        return backbone.best_paths(self._graph(), k)

    def _graph(self) -> TokenGraph:
        edges = self.top_edges(self.panels.length**2)
        return token_graph(self.solution, 0, edges)


def token_graph(solution: Solution, b: int, edges: Edges) -> TokenGraph:
    """Sequence `b` of a batch as a graph for `flowtracer.backbone`."""
    return TokenGraph(
        edges=edges,
        flow=solution.flow_BT[b].double().cpu().numpy(),
        source=solution.source_BT[b].double().cpu().numpy(),
        sink=solution.answer_BT[b].cpu().numpy(),
    )


def compute_flow(
    attention_TT: Tensor | np.ndarray,
    question_T: Tensor | np.ndarray,
    answer_T: Tensor | np.ndarray,
    *,
    implementation: str = "auto",
) -> FlowResult:
    """How much of the flow from question to answer passes through every token.

    Args:
        attention_TT: Row `k` is what token `k` pays to each token, averaged over heads and layers as wished. The
            diagonal and what stands above it are ignored; rows are not renormalised. Any float type and device.
        question_T: Boolean mask of the tokens that the flow starts from.
        answer_T: Boolean mask of the tokens that the flow ends in.
        implementation: "auto", "panels" or "reference".

    Raises:
        InputError: Wrong shape, negative or non-finite attention below the diagonal, no answer token, or no question
            token that the answer can be reached from.
    """
    attention_TT = torch.as_tensor(attention_TT)
    if attention_TT.ndim != 2 or attention_TT.shape[0] != attention_TT.shape[1]:
        raise InputError(f"expected attention of shape (T, T), got {tuple(attention_TT.shape)}")
    if not attention_TT.is_floating_point():
        raise InputError(f"expected attention as floating point numbers, got {attention_TT.dtype}")
    below = attention_TT.tril(-1)
    if not bool(((below >= 0) & (below < torch.inf)).all()):
        raise InputError("expected attention that is finite and not negative, got NaN, infinity or a negative weight")
    source = MatrixPanels(attention_TT[None])
    question_BT = torch.as_tensor(question_T)[None]
    answer_BT = torch.as_tensor(answer_T)[None]
    solution = solve(source, question_BT, answer_BT, implementation=implementation)
    if not bool(solution.connected_B[0]):
        raise InputError(
            "expected at least one question token that the answer attends to, directly or through others; got none: "
            "check that the question mask is not empty and stands before the answer"
        )
    return FlowResult(panels=source, solution=solution)
