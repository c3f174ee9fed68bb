"""Flow over one matrix of attention, as users see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.flow import panels as _panels
from flowtracer.flow.edges import MAX_EDGES, summarise_edges
from flowtracer.flow.panels import MatrixPanels
from flowtracer.flow.solution import PanelSource, Solution
from flowtracer.flow.solve import solve
from flowtracer.shapes import Bool, Float
from flowtracer.trace import backbone
from flowtracer.trace.backbone import Backbone, Edges, Path, TokenGraph


@dataclass(frozen=True, kw_only=True)  # no slots: what is computed once is kept in the instance
class FlowResult:
    """Flow over one sequence, with the matrix it was computed from.

    Backbone and paths are read off its largest edges, 100,000 at most, as those of a `Trace` are; they are found once.
    """

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
        """The fewest largest edges that carry `share` of the flow by themselves; its own `.share` says what they do."""
        return backbone.backbone(self._graph, share)

    def paths(self, k: int = 5) -> list[Path]:
        """The `k` most probable walks from question to answer; each says whether it is `.exact`."""
        return backbone.best_paths(self._graph, k)

    @cached_property
    def _graph(self) -> TokenGraph:
        return token_graph(self.solution, 0, self.top_edges(MAX_EDGES))


def token_graph(solution: Solution, b: int, edges: Edges) -> TokenGraph:
    """Sequence `b` of a batch as a graph for `flowtracer.trace.backbone`."""
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
        InputError: Wrong shape, negative or non-finite attention below the diagonal, weights so large that their
            products overflow, no answer token, or no question token that the answer can be reached from.
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
    question_1T, answer_1T = (
        _mask(name, given, source.length)[None] for name, given in (("question", question_T), ("answer", answer_T))
    )
    solution = solve(source, question_1T, answer_1T, implementation=implementation)
    if not bool(solution.finite_B[0]):
        raise InputError(
            "expected rows that sum to at most 1, as attention's do, got weights so large that reach overflows; "
            "divide each row by its sum"
        )
    if not bool(solution.connected_B[0]):
        raise InputError(
            "expected at least one question token that the answer attends to, directly or through others; got none: "
            "check that the question mask is not empty and stands before the answer"
        )
    return FlowResult(panels=source, solution=solution)


def _mask(name: str, given: Tensor | np.ndarray, length: int) -> Bool[Tensor, " T"]:
    mask_T = torch.as_tensor(given)
    if mask_T.dtype != torch.bool or mask_T.shape != (length,):
        raise InputError(
            f"expected the {name} mask as {length} booleans, one a token, got {mask_T.dtype} of shape "
            f"{tuple(mask_T.shape)}; a mask from indices: mask = np.zeros({length}, bool); mask[indices] = True"
        )
    return mask_T
