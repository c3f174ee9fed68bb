"""Rows of attention averaged over heads and layers, a panel at a time; only here torch or the kernels are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.errors import InputError
from flowtracer.shapes import Float

if TYPE_CHECKING:
    from flowtracer.attention.kernels.launch import LayerKernel

_PANEL_BYTES = 32 * 2**20
"""Working memory of one panel's scores. Larger panels leave the cache, smaller ones waste the matrix product."""

_KERNEL_PANEL_BYTES = 256 * 2**20
"""Size of a panel of `W` where no map of a head stands beside it: few launches, and 512 rows at 128K tokens."""

IMPLEMENTATIONS = ("auto", "torch", "triton")


class AttentionPanels:
    """Row panels of attention averaged over the chosen heads of the chosen layers, recomputed when asked for.

    Args:
        layers: What the chosen layers attend with.
        panel_rows: Rows of a panel; None for what suits the memory.
        implementation: "triton" for the kernels, "torch" for maps of heads a panel at a time; "auto" takes the kernels
            on a GPU where Triton is installed and every layer is one that they take.

    Raises:
        InputError: "triton" was asked for, and a layer is none that the kernels take.
        MissingDependencyError: "triton" was asked for, and is not installed.
    """

    def __init__(
        self,
        layers: Sequence[LayerAttention],
        *,
        panel_rows: int | None = None,
        implementation: str = "auto",
    ) -> None:
        self._layers = list(layers)
        query_BHTD = self._layers[0].query_BHTD
        self.batch, heads, self.length, _ = query_BHTD.shape
        self.device = query_BHTD.device
        self.head_counts = tuple(len(layer.heads) for layer in self._layers)
        self.implementation = _choose(self._layers, implementation)
        if self.implementation == "triton":
            fitting = _KERNEL_PANEL_BYTES // (4 * self.batch * self.length)
            self.panel_rows = panel_rows or max(128, min(1024, fitting // 128 * 128))
        else:
            self.panel_rows = panel_rows or panel_rows_for(self.batch, heads, self.length)

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, strictly lower triangular."""
        if self.implementation == "triton":
            return self._fused_rows(start, stop)
        total = self._layers[0].weights(start, stop).sum(1)
        for layer in self._layers[1:]:
            total += layer.weights(start, stop).sum(1).to(total.device)  # layers may lie on several GPUs
        return total.div_(sum(self.head_counts)).tril_(start - 1)

    def _fused_rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        total = torch.zeros(self.batch, stop - start, stop, device=self.device)
        for kernel in self._kernels:
            here = total if kernel.device == total.device else torch.zeros_like(total, device=kernel.device)
            kernel.add_rows(here, start, 1 / sum(self.head_counts))
            if here is not total:
                total += here.to(total.device)
        return total

    @cached_property
    def _kernels(self) -> list[LayerKernel]:
        """Every layer with the statistics of its rows, which serve all panels of all sweeps."""
        from flowtracer.attention.kernels.launch import LayerKernel

        return [
            LayerKernel(
                layer.query_BHTD,
                layer.key_BKTD,
                scale=layer.scale,
                mask=layer.mask if isinstance(layer.mask, Tensor) else None,  # rules are refused before
                segments_BT=layer.segments_BT if layer.mask is None else None,
                window=layer.window if layer.mask is None else None,
                softcap=layer.softcap,
                sinks_H=layer.sinks_H,
            )
            for layer in self._layers
        ]

    def head_rows(self, start: int, stop: int) -> Iterator[Float[Tensor, "B H P C"]]:
        """Rows `start..stop` over columns `0..stop` of each layer's heads, one layer after another."""
        return (layer.weights(start, stop) for layer in self._layers)


def sees_before(layers: Sequence[LayerAttention], start: int) -> bool:
    """Whether token `start` of any sequence attends to an earlier one, as the first of a packed sequence must not."""
    # A single row is not worth the statistics of all others, which the kernels would begin with.
    row_B1C = AttentionPanels(layers, implementation="torch").rows(start, start + 1)
    return bool((row_B1C[..., :start] > 0).any())


def panel_rows_for(batch: int, heads: int, length: int) -> int:
    """Rows of a panel that fit the working memory where a map of every head is made."""
    fitting = _PANEL_BYTES // (4 * batch * heads * length)
    return max(16, min(128, fitting // 16 * 16))


def _choose(layers: Sequence[LayerAttention], implementation: str) -> str:
    """What runs: "torch" or "triton"."""
    if implementation not in IMPLEMENTATIONS:
        raise InputError(f"expected an implementation among {list(IMPLEMENTATIONS)}, got {implementation!r}")
    on_gpus = all(layer.query_BHTD.device.type == "cuda" for layer in layers)
    if implementation == "torch" or (implementation == "auto" and not (on_gpus and find_spec("triton"))):
        return "torch"
    from flowtracer.attention.kernels.launch import refusal

    for layer in layers:
        reason = refusal(
            layer.query_BHTD,
            layer.key_BKTD,
            scale=layer.scale,
            mask=layer.mask,
            position_bias=layer.position_bias,
        )
        if reason is not None and implementation == "auto":
            return "torch"
        if reason is not None:
            raise InputError(
                f"expected attention that the kernels take, got {reason} in layer {layer.layer}; "
                "use implementation='auto' or 'torch'"
            )
    return "triton"
