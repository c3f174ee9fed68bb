"""Reach and flow of a batch: the only place that chooses an implementation."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.flow import panels as _panels
from flowtracer.flow import reference as _reference
from flowtracer.flow.panels import CachedPanels
from flowtracer.flow.solution import PanelSource, Solution, check_masks

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
    check_masks((panels.batch, panels.length), question_BT, answer_BT)
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
