"""What a flow solver returns, and the contract between a matrix and a solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float

Panel = tuple[int, int]


@runtime_checkable
class PanelSource(Protocol):
    """The capacity matrix `W` of equation (1), a slab of rows at a time.

    A solver asks for every panel once in each of its two sweeps, so a source may store the matrix or
    recompute it: the algorithm does not know.
    """

    @property
    def batch(self) -> int:
        """Number of sequences."""
        ...

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        ...

    @property
    def panel_rows(self) -> int:
        """Rows of a panel that suit this source."""
        ...

    @property
    def device(self) -> torch.device:
        """Where panels live."""
        ...

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` of `W` over columns `0..stop`, strictly lower triangular, finite where valid."""
        ...


@runtime_checkable
class LayerPanelSource(Protocol):
    """Row-stochastic matrices of layers, a slab of rows at a time."""

    @property
    def batch(self) -> int:
        """Number of sequences."""
        ...

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        ...

    @property
    def layers(self) -> int:
        """Number of layers."""
        ...

    @property
    def panel_rows(self) -> int:
        """Rows of a panel that suit this source."""
        ...

    @property
    def device(self) -> torch.device:
        """Where panels live."""
        ...

    def rows(self, layer: int, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` of a layer over columns `0..stop`: lower triangular with the diagonal, each of sum 1."""
        ...


def panel_bounds(length: int, panel_rows: int) -> list[Panel]:
    """Cut `length` rows into panels of at most `panel_rows`, first rows first."""
    return [(start, min(start + panel_rows, length)) for start in range(0, length, panel_rows)]


def check_masks(shape: tuple[int, int], question_BT: Tensor, answer_BT: Tensor) -> None:
    """Raise unless both masks are booleans, one a token.

    Raises:
        InputError: Another shape or type.
    """
    for name, mask in (("question", question_BT), ("answer", answer_BT)):
        if mask.dtype != torch.bool or tuple(mask.shape) != shape:
            raise InputError(
                f"expected the {name} mask as booleans of shape {shape}, got {mask.dtype} of shape {tuple(mask.shape)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Reach and flow of a batch, kept as logarithms because reach may be far below any float's range.

    Edge flow needs only these two and `W`: `phi(i->k) = exp(log_inflow(i)) W[k,i] exp(log_reach(k))`.
    """

    log_reach_BT: Float[Tensor, "B T"]
    """log h of equation (2); -inf where the answer is out of reach."""
    log_inflow_BT: Float[Tensor, "B T"]
    """log of u = f / h, the factored form of equation (4); -inf where nothing flows."""
    question_BT: Bool[Tensor, "B T"]
    answer_BT: Bool[Tensor, "B T"]

    @property
    def reach_BT(self) -> Float[Tensor, "B T"]:
        """h: expected visits of backward attention walks, one from each answer token; 0 <= h <= |A|."""
        return self.log_reach_BT.exp()

    @property
    def flow_BT(self) -> Float[Tensor, "B T"]:
        """f: share of the unit from question to answer that passes through each token."""
        return (self.log_inflow_BT + self.log_reach_BT).exp()

    @property
    def throughput_BT(self) -> Float[Tensor, "B T"]:
        """Tau = inflow + outflow: 2 f off the answer, f on it, equation (5)."""
        return self.flow_BT * torch.where(self.answer_BT, 1.0, 2.0)

    @property
    def source_BT(self) -> Float[Tensor, "B T"]:
        """s: what enters from the source at each token, equation (4)."""
        return source_shares(self.question_BT, self.log_reach_BT)

    @property
    def finite_B(self) -> Bool[Tensor, " B"]:
        """Whether the attention that was needed held no NaN or infinity."""
        return ((self.log_reach_BT < torch.inf) & (self.log_inflow_BT < torch.inf)).all(-1)

    @property
    def connected_B(self) -> Bool[Tensor, " B"]:
        """Whether any question token reaches the answer; where not, no token carries flow."""
        return (self.question_BT & (self.log_reach_BT > -torch.inf)).any(-1)


def source_shares(question_BT: Bool[Tensor, "B T"], log_reach_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """A unit per sequence, shared equally by the question tokens that reach the answer; 0 where none does."""
    entering_BT = (question_BT & (log_reach_BT > -torch.inf)).to(log_reach_BT.dtype)
    return entering_BT / entering_BT.sum(-1, keepdim=True).clamp_min(1)
