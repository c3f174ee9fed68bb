"""Reach and flow by two triangular sweeps over row panels of `W`.

With `u = f / h` both equations are solves with the same strictly triangular matrix (docs/method.md, factored form):

    (2)   h(i) = sum_{k>i} W[k,i] h(k)                    h(a) = 1 on the answer
    (4')  u(k) = s(k)/h(k) + sum_{i<k, i not in A} W[k,i] u(i)

1. Backward over panels: solve the panel's own triangle for `h`, then push `W[k0:k1, :k0]^T h` to earlier tokens.
2. Forward over panels: pull `W[k0:k1, :k0] u`, then solve the triangle for `u`.
3. Where `h` is too small for its float to be trusted (a chain of weak links), sweep again over logarithms.

Each sweep reads every panel once and keeps nothing of it, so memory is the source's affair: `MatrixPanels` views a
stored matrix, `CachedPanels` remembers what another source computed, and a source that recomputes needs O(P T).
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.flow.solution import Panel, PanelSource, Solution, panel_bounds, source_shares
from flowtracer.shapes import Bool, Float


class MatrixPanels:
    """Row panels of a stored attention matrix; what stands on or above the diagonal is ignored."""

    def __init__(self, attention_BTT: Float[Tensor, "B T T"], *, panel_rows: int = 128) -> None:
        self._attention_BTT = attention_BTT
        self.panel_rows = panel_rows
        self.batch, self.length, _ = attention_BTT.shape
        self.device = attention_BTT.device

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, in the type that sweeps run in."""
        panel_BPC = self._attention_BTT[:, start:stop, :stop].to(sweep_dtype(self.device), copy=True)
        panel_BPC[:, :, start:].tril_(-1)  # the rest stands below the diagonal
        return panel_BPC


class CachedPanels:
    """Remembers the panels of another source, so that the second sweep recomputes none: half of T^2 in memory."""

    def __init__(self, source: PanelSource) -> None:
        self._source = source
        self._panels: dict[Panel, Tensor] = {}
        self.panel_rows = source.panel_rows
        self.batch, self.length, self.device = source.batch, source.length, source.device

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`."""
        if (start, stop) not in self._panels:
            self._panels[start, stop] = self._source.rows(start, stop)
        return self._panels[start, stop]


def solve(panels: PanelSource, question_BT: Bool[Tensor, "B T"], answer_BT: Bool[Tensor, "B T"]) -> Solution:
    """Reach and flow of every sequence of a batch, range-safe; each sequence is independent of the others."""
    bounds = panel_bounds(_rows_needed(answer_BT), panels.panel_rows)
    log_reach_BT, underflowed_B = _backward(panels, bounds, answer_BT)
    log_inflow_BT = _forward(panels, bounds, question_BT, answer_BT, log_reach_BT)
    if underflowed_B.any():
        safe_reach_BT = _backward_log(panels, bounds, answer_BT)
        safe_inflow_BT = _forward_log(panels, bounds, question_BT, answer_BT, safe_reach_BT)
        log_reach_BT = torch.where(underflowed_B[:, None], safe_reach_BT, log_reach_BT)
        log_inflow_BT = torch.where(underflowed_B[:, None], safe_inflow_BT, log_inflow_BT)
    return Solution(
        log_reach_BT=log_reach_BT, log_inflow_BT=log_inflow_BT, question_BT=question_BT, answer_BT=answer_BT
    )


def _rows_needed(answer_BT: Bool[Tensor, "B T"]) -> int:
    """Rows up to the last answer token of the batch; none after it can carry flow."""
    columns = answer_BT.any(0).nonzero()
    if not len(columns):
        raise InputError("expected an answer token in at least one sequence, got none; mark where the answer is")
    return int(columns[-1]) + 1


def sweep_dtype(device: torch.device) -> torch.dtype:
    """Sweeps run in float64, whose range almost never needs the logarithms; Apple's GPUs have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _backward(
    panels: PanelSource, bounds: list[Panel], answer_BT: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, " B"]]:
    """Equation (2). Also says in which sequences some reach is too small to be trusted."""
    dtype = sweep_dtype(panels.device)
    answer_sink_BT = answer_BT.to(dtype)
    # Rows that can reach the answer at all: up to each sequence's own last answer token.
    live_BT = answer_sink_BT.flip(-1).cummax(-1).values.flip(-1)
    weights_B2T = torch.stack([answer_sink_BT, live_BT], 1)
    pushed_B2T = torch.zeros_like(weights_B2T)  # reach, and plain column sums
    reach_BT, pushed_BT = weights_B2T[:, 0], pushed_B2T[:, 0]
    minus_free_BT = answer_sink_BT - 1
    for start, stop in reversed(bounds):
        here = slice(start, stop)
        panel_BPC = panels.rows(start, stop).to(dtype)
        pulled_BP = torch.addcmul(answer_sink_BT[:, here], minus_free_BT[:, here], pushed_BT[:, here], value=-1)
        reach_BT[:, here] = torch.linalg.solve_triangular(
            panel_BPC[:, :, start:].mT * minus_free_BT[:, here, None],
            pulled_BP[:, :, None],
            upper=True,
            unitriangular=True,
        ).squeeze(-1)
        pushed_B2T[:, :, :stop].baddbmm_(weights_B2T[:, :, here], panel_BPC)
    # Products below the smallest normal number are lost: a sum that outweighs T of them is exact to rounding.
    info = torch.finfo(dtype)
    trusted = panels.length * info.tiny / info.eps
    lost_BT = (reach_BT < trusted) & (pushed_B2T[:, 1] > 0) & ~answer_BT
    return reach_BT.log(), lost_BT.any(-1)


def _forward(
    panels: PanelSource,
    bounds: list[Panel],
    question_BT: Bool[Tensor, "B T"],
    answer_BT: Bool[Tensor, "B T"],
    log_reach_BT: Float[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """Equation (4'), as log u."""
    reachable_BT = log_reach_BT > -torch.inf
    entry_BT = source_shares(question_BT, log_reach_BT) * torch.where(reachable_BT, (-log_reach_BT).exp(), 0.0)
    passes_BT = (~answer_BT).to(entry_BT.dtype)
    minus_passes_BT = -passes_BT
    inflow_BT, onward_BT = torch.zeros_like(entry_BT), torch.zeros_like(entry_BT)
    for start, stop in bounds:
        here = slice(start, stop)
        panel_BPC = panels.rows(start, stop).to(entry_BT.dtype)
        pulled_BP1 = torch.baddbmm(entry_BT[:, here, None], panel_BPC[:, :, :start], onward_BT[:, :start, None])
        inflow_BP = torch.linalg.solve_triangular(
            panel_BPC[:, :, start:] * minus_passes_BT[:, None, here], pulled_BP1, upper=False, unitriangular=True
        ).squeeze(-1)
        inflow_BT[:, here] = inflow_BP
        onward_BT[:, here] = inflow_BP * passes_BT[:, here]
    return torch.where(reachable_BT | inflow_BT.isnan(), inflow_BT, 0.0).log()


def _backward_log(panels: PanelSource, bounds: list[Panel], answer_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Equation (2) over logarithms, a row at a time: any range, and rarely needed."""
    dtype = sweep_dtype(panels.device)
    log_reach_BT = torch.where(answer_BT, 0.0, -torch.inf).to(dtype)
    for start, stop in reversed(bounds):
        log_BPC = panels.rows(start, stop).to(dtype).log()
        for k in reversed(range(start, stop)):
            through_BC = log_BPC[:, k - start, :k] + log_reach_BT[:, k, None]
            earlier_BC = log_reach_BT[:, :k]
            log_reach_BT[:, :k] = torch.where(answer_BT[:, :k], earlier_BC, torch.logaddexp(earlier_BC, through_BC))
    return log_reach_BT


def _forward_log(
    panels: PanelSource,
    bounds: list[Panel],
    question_BT: Bool[Tensor, "B T"],
    answer_BT: Bool[Tensor, "B T"],
    log_reach_BT: Float[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """Equation (4') over logarithms, a row at a time."""
    log_entry_BT = source_shares(question_BT, log_reach_BT).log()
    log_onward_BT = torch.full_like(log_entry_BT, -torch.inf)
    log_inflow_BT = torch.full_like(log_entry_BT, -torch.inf)
    for start, stop in bounds:
        log_BPC = panels.rows(start, stop).to(log_entry_BT.dtype).log()
        for k in range(start, stop):
            pulled_B = torch.logsumexp(log_BPC[:, k - start, :k] + log_onward_BT[:, :k], -1)
            reached_B = log_reach_BT[:, k] > -torch.inf
            # log s is -inf off the question, and -inf - -inf must not be asked for.
            entered_B = log_entry_BT[:, k] - torch.where(reached_B, log_reach_BT[:, k], 0.0)
            inflow_B = torch.where(reached_B, torch.logaddexp(pulled_B, entered_B), -torch.inf)
            log_inflow_BT[:, k] = inflow_B
            log_onward_BT[:, k] = torch.where(answer_BT[:, k], -torch.inf, inflow_B)
    return log_inflow_BT


def edge_flow_scale(solution: Solution, start: int, stop: int) -> Float[Tensor, "B P C"]:
    """What turns capacity into edge flow, `h(k) u(i)` of (4'), for rows `k` in `start..stop`, columns `0..stop`."""
    log_onward_BC = solution.log_inflow_BT[:, :stop].masked_fill(solution.answer_BT[:, :stop], -torch.inf)
    log_reach_BP = solution.log_reach_BT[:, start:stop]
    scale_BPC = (log_reach_BP[:, :, None] + log_onward_BC[:, None, :]).exp_()
    # phi <= 1 bounds the scale by 1 / W; only where W is 0 can it overflow, and 0 * inf must stay 0.
    return scale_BPC.clamp_max_(torch.finfo(scale_BPC.dtype).max)


def edge_flow_rows(panels: PanelSource, solution: Solution, start: int, stop: int) -> Float[Tensor, "B P C"]:
    """Edge flow `phi(i->k)` of equation (5) for rows `k` in `start..stop`, columns `i` in `0..stop`."""
    return edge_flow_scale(solution, start, stop).mul_(panels.rows(start, stop))
