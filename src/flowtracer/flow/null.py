"""The null model: what a token's place alone would carry.

Much flow passes the tokens before the answer whatever they say, since attention falls with distance. The null model is
the same sequence, with its own question and answer, whose attention knows nothing but distance:

1. `DistanceMeans` averages the rows of a source by distance while a solver reads them, so that no pass is spent on it.
   The first token stands apart: all attend to it as to a sink. A sequence's rows count up to its last answer token,
   which are those that a solver needs.
2. `DistancePanels` is the source of the averaged matrix, Toeplitz but for its first column, made a panel at a time out
   of one row a sequence.
3. `expected_flow` solves it as any other source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.flow.panels import sweep_dtype
from flowtracer.flow.solution import Panel, PanelSource, Solution
from flowtracer.flow.solve import solve
from flowtracer.shapes import Bool, Float

_PANEL_BYTES = 32 * 2**20
"""Size of a panel of the null model."""


class DistanceMeans:
    """Hands on the panels of another source, and averages them by distance as each first passes.

    Args:
        source: Where the panels come from.
        answer_BT: Tokens that the flow ends in; at least one of every sequence.
    """

    def __init__(self, source: PanelSource, answer_BT: Bool[Tensor, "B T"]) -> None:
        self._source = source
        self.panel_rows = source.panel_rows
        self.batch, self.length, self.device = source.batch, source.length, source.device
        places_T = torch.arange(self.length, device=self.device)
        self._last_B = (answer_BT.to(self.device) * places_T).amax(1)
        self._sums_BT = torch.zeros(self.batch, self.length, dtype=sweep_dtype(self.device), device=self.device)
        self._seen: set[Panel] = set()

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, as the source gives them."""
        panel_BPC = self._source.rows(start, stop)
        if (start, stop) not in self._seen:
            self._seen.add((start, stop))
            self._add(panel_BPC, start, stop)
        return panel_BPC

    @property
    def kernel_BT(self) -> Float[Tensor, "B T"]:
        """[d]: mean attention to the token `d` before, the first excepted; [0]: to that first; 0 where none passed."""
        distance_T = torch.arange(self.length, device=self.device)
        pairs_BT = self._last_B[:, None] - distance_T  # into tokens 1.., out of tokens up to the last of the answer
        return self._sums_BT / pairs_BT.clamp_min(1)

    def _add(self, panel_BPC: Float[Tensor, "B P C"], start: int, stop: int) -> None:
        rows = stop - start
        # Read in rows that are one shorter than they were written in, and from the last row on, every row stands one
        # place further right than the one before, so that equal distances stand in one column.
        skewed_BPX = panel_BPC.new_zeros(self.batch, rows, stop + rows)
        skewed_BPX[:, :, :stop] = panel_BPC.flip(1)
        last_first_P = torch.arange(stop - 1, start - 1, -1, device=self.device)
        skewed_BPX.masked_fill_((last_first_P > self._last_B[:, None])[:, :, None], 0.0)
        first_B = skewed_BPX[:, :, 0].sum(1, dtype=self._sums_BT.dtype)
        skewed_BPX[:, :, 0] = 0.0
        width = stop + rows - 1
        by_distance_BPX = skewed_BPX.flatten(1)[:, : rows * width].unflatten(1, (rows, width))[:, :, :stop]
        self._sums_BT[:, :stop] += by_distance_BPX.sum(1, dtype=self._sums_BT.dtype).flip(1)
        self._sums_BT[:, 0] += first_B


class DistancePanels:
    """Row panels of attention by distance alone, made when asked for out of one row a sequence.

    Args:
        kernel_BT: What `DistanceMeans` found.
    """

    def __init__(self, kernel_BT: Float[Tensor, "B T"]) -> None:
        self.batch, self.length = kernel_BT.shape
        self.device = kernel_BT.device
        fitting = _PANEL_BYTES // (kernel_BT.element_size() * self.batch * self.length)
        self.panel_rows = max(16, min(128, fitting // 16 * 16))
        self._first_B = kernel_BT[:, 0]
        by_distance_BT = kernel_BT.clone()
        by_distance_BT[:, 0] = 0.0
        # Row k of the matrix stands in here, from place length - 1 - k on.
        self._all_rows_BX = torch.cat([by_distance_BT.flip(1), torch.zeros_like(kernel_BT)], 1)

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, strictly lower triangular."""
        panel_BPC = self._all_rows_BX.unfold(1, stop, 1)[:, self.length - stop : self.length - start].flip(1)
        panel_BPC[:, :, 0] = self._first_B[:, None]
        if start == 0:
            panel_BPC[:, 0, 0] = 0.0
        return panel_BPC


def expected_flow(kernel_BT: Float[Tensor, "B T"], solution: Solution) -> Float[Tensor, "B T"]:
    """Flow f of the null model, with the question and answer of a solution."""
    return solve(DistancePanels(kernel_BT), solution.question_BT, solution.answer_BT).flow_BT
