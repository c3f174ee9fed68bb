"""The depth unrolled: flow over nodes (token, layer), by two sweeps through the layers.

Averaging layers into one graph on tokens lets a walk use layer 20 before layer 3. Here a backward walk starts on
top of the last layer, at a position that predicts the answer, and goes down: through layer `l` it stays at its
token `k` with probability `C_l[k,k]`, or moves to an earlier token `i` with probability `C_l[k,i]`; rows of `C_l`
sum to 1. With `p_l(i)` the probability that the walk is at `i` when it has come down to below layer `l` (`p_L` its
start, shared equally by the positions that predict the answer),

    (7)   p_l(i) = sum_{k>=i} C_l[k,i] p_{l+1}(k)             down, a product of a row vector and a matrix each layer
    (8)   e_{l+1}(k) = sum_{i<=k} C_l[k,i] e_l(i)             up: the probability to end in the question, e_0 = 1 on it
    (9)   f_l(i) = p_l(i) e_l(i) / Z,   Z = sum_k p_L(k) e_L(k)

A walk never returns to a token that it left, so it *enters* each at most once, and a token's flow is the
probability that the walk is ever there:

    (10)  f(i) = f_L(i) + sum_l sum_{k>i} phi_l(i->k),        phi_l(i->k) = e_l(i) C_l[k,i] p_{l+1}(k) / Z

`ends="anywhere"` leaves the end open (`e = 1`, `Z = 1`, no sweep up); `ends="question"` conditions on it, a Doob
h-transform as over tokens. Every layer carries a unit, sum_i f_l(i) = 1, and what a token is given it hands on.

Both sweeps read each panel of rows of each layer once: O(L T^2) time, and O(L T) memory beside the panels' own. A
walk moves at most once a layer, so the products are of at most L numbers, and float64 holds them without
logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.flow.panels import sweep_dtype
from flowtracer.flow.solution import LayerPanelSource, check_masks, panel_bounds
from flowtracer.shapes import Bool, Float

ENDS = ("anywhere", "question")
"""Where backward walks may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredSolution:
    """Walks of a batch. `N` runs over the places between layers, from below the first to above the last."""

    walk_NBT: Float[Tensor, "N B T"]
    """p, equation (7): whatever the walk's end."""
    end_NBT: Float[Tensor, "N B T"]
    """e / Z, equations (8) and (9): how much more probable the wanted end is from there than from the start."""
    visits_BT: Float[Tensor, "B T"]
    """Probability that a walk is ever at a token, whatever its end."""
    flow_BT: Float[Tensor, "B T"]
    """f, equation (10): the same among the walks that end where they should."""
    question_BT: Bool[Tensor, "B T"]
    answer_BT: Bool[Tensor, "B T"]
    """Where walks start."""

    @property
    def reach_BT(self) -> Float[Tensor, "B T"]:
        """Expected visits of one walk from each position that the walks start at, whatever their end."""
        return self.visits_BT * self.answer_BT.sum(-1, keepdim=True)

    @property
    def throughput_BT(self) -> Float[Tensor, "B T"]:
        """2 f off the answer, f on it, as over tokens."""
        return self.flow_BT * torch.where(self.answer_BT, 1.0, 2.0)

    @property
    def source_BT(self) -> Float[Tensor, "B T"]:
        """Where walks end, which is where flow begins: f below the first layer."""
        return self.walk_NBT[0] * self.end_NBT[0]

    @property
    def layer_flow_NBT(self) -> Float[Tensor, "N B T"]:
        """f_l, equation (9): each sums to 1."""
        return self.walk_NBT * self.end_NBT

    @property
    def finite_B(self) -> Bool[Tensor, " B"]:
        """Whether what was needed held no NaN or infinity."""
        return self.walk_NBT.isfinite().all(-1).all(0) & self.end_NBT.isfinite().all(-1).all(0)

    @property
    def connected_B(self) -> Bool[Tensor, " B"]:
        """Whether any walk ends where it should; where not, no token carries flow."""
        return (self.source_BT > 0).any(-1)


def solve_layered(
    panels: LayerPanelSource, question_BT: Tensor, answer_BT: Tensor, *, ends: str = "anywhere"
) -> LayeredSolution:
    """Flow over (token, layer) of every sequence of a batch; each is independent of the others.

    Args:
        panels: Rows of the layers' matrices.
        question_BT: Boolean, tokens in which walks end with `ends="question"`.
        answer_BT: Boolean, positions that walks start at, which predict the answer.
        ends: One of `ENDS`.

    Raises:
        InputError: Another end, masks of another shape or type, or no start in the whole batch.
    """
    shape = (panels.batch, panels.length)
    check_masks(shape, question_BT, answer_BT)
    if ends not in ENDS:
        raise InputError(f"expected ends among {ENDS}, got {ends!r}")
    if not bool(answer_BT.any()):
        raise InputError("expected an answer in at least one sequence, got none; mark where the walks start")
    question_BT, answer_BT = question_BT.to(panels.device), answer_BT.to(panels.device)
    start_BT = answer_BT.to(sweep_dtype(panels.device))
    start_BT = start_BT / start_BT.sum(-1, keepdim=True).clamp_min(1)
    rows = int(answer_BT.any(0).nonzero()[-1]) + 1  # no walk is ever at a later token
    end_NBT = start_BT.new_ones(panels.layers + 1, *shape)
    if ends == "question":
        end_NBT = _up(panels, rows, question_BT.to(start_BT.dtype))
        total_B1 = (start_BT * end_NBT[-1]).sum(-1, keepdim=True)
        end_NBT = torch.where(total_B1 == 0, 0.0, end_NBT / total_B1)  # NaN stays visible
    walk_NBT, visits_BT, flow_BT = _down(panels, rows, start_BT, end_NBT)
    return LayeredSolution(
        walk_NBT=walk_NBT,
        end_NBT=end_NBT,
        visits_BT=visits_BT,
        flow_BT=flow_BT,
        question_BT=question_BT,
        answer_BT=answer_BT,
    )


def _panel(
    panels: LayerPanelSource, layer: int, start: int, stop: int
) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P"]]:
    """Moves and stays of a panel. Rows sum to 1 in the type that sweeps run in, which their own may only nearly do."""
    panel_BPC = panels.rows(layer, start, stop).to(sweep_dtype(panels.device), copy=True)
    panel_BPC /= panel_BPC.sum(-1, keepdim=True)
    stays_BP = panel_BPC[:, :, start:].diagonal(dim1=1, dim2=2)
    kept_BP = stays_BP.clone()
    stays_BP.zero_()
    return panel_BPC, kept_BP


def _up(panels: LayerPanelSource, rows: int, question_BT: Float[Tensor, "B T"]) -> Float[Tensor, "N B T"]:
    """Equation (8)."""
    end_NBT = question_BT.new_zeros(panels.layers + 1, *question_BT.shape)
    end_NBT[0] = question_BT
    for layer in range(panels.layers):
        below_BT, above_BT = end_NBT[layer], end_NBT[layer + 1]
        for start, stop in panel_bounds(rows, panels.panel_rows):
            moves_BPC, stays_BP = _panel(panels, layer, start, stop)
            moved_BP = (moves_BPC @ below_BT[:, :stop, None]).squeeze(-1)
            above_BT[:, start:stop] = torch.addcmul(moved_BP, stays_BP, below_BT[:, start:stop])
    return end_NBT


def _down(
    panels: LayerPanelSource, rows: int, start_BT: Float[Tensor, "B T"], end_NBT: Float[Tensor, "N B T"]
) -> tuple[Float[Tensor, "N B T"], Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Equations (7) and (10): where walks are, and how probably one is ever at a token, whatever its end and not."""
    walk_NBT = torch.zeros_like(end_NBT)
    walk_NBT[-1] = start_BT
    visits_BT, flow_BT = start_BT.clone(), start_BT * end_NBT[-1]
    for layer in reversed(range(panels.layers)):
        above_BT, entered_BT = walk_NBT[layer + 1], torch.zeros_like(start_BT)
        for start, stop in panel_bounds(rows, panels.panel_rows):
            moves_BPC, stays_BP = _panel(panels, layer, start, stop)
            here_BP = above_BT[:, start:stop]
            entered_BT[:, :stop] += (here_BP[:, None] @ moves_BPC).squeeze(1)
            walk_NBT[layer, :, start:stop] += here_BP * stays_BP
        walk_NBT[layer] += entered_BT
        visits_BT += entered_BT
        flow_BT += entered_BT * end_NBT[layer]
    return walk_NBT, visits_BT, flow_BT


def layer_edge_flow(
    panels: LayerPanelSource, solution: LayeredSolution, layer: int, start: int, stop: int
) -> tuple[Float[Tensor, "B P C"], Float[Tensor, "B P"]]:
    """phi_l of equation (10) for rows `k` in `start..stop`, columns `i` in `0..stop`; and what stays at its token."""
    moves_BPC, stays_BP = _panel(panels, layer, start, stop)
    walk_BP, end_BC = solution.walk_NBT[layer + 1, :, start:stop], solution.end_NBT[layer, :, :stop]
    moves_BPC.mul_(walk_BP[:, :, None]).mul_(end_BC[:, None])
    return moves_BPC, stays_BP * walk_BP * end_BC[:, start:]
