"""Capacities of the chosen layers, a panel of rows at a time: as one graph on tokens, or layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowtracer.attention.capacity.base import LayerCapacity, add_to_diagonal, row_shares
from flowtracer.attention.panels import panel_rows_for
from flowtracer.shapes import Float


class _Panels:
    """What both sources know of the chosen layers: their shape, and how many rows a panel has."""

    def __init__(self, layers: Sequence[LayerCapacity]) -> None:
        self._layers = list(layers)
        query_BHTD = self._layers[0].layer.query_BHTD
        self.batch, heads, self.length, _ = query_BHTD.shape
        self.device = query_BHTD.device
        self.panel_rows = panel_rows_for(self.batch, heads, self.length)


class CapacityPanels(_Panels):
    """Row panels of a capacity summed over the chosen layers, the graph on tokens; recomputed when asked for.

    What a token gives to itself is dropped before rows are divided by their sums. A walk that stays for a while and
    then moves on visits the same tokens as one that never stays, so this loses nothing.

    Args:
        layers: A capacity of each chosen layer.
    """

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, strictly lower triangular; each sums to 1, or is zero."""
        total_BPC = torch.zeros(self.batch, stop - start, stop, device=self.device)
        for layer in self._layers:
            total_BPC += layer.contributions(start, stop).to(self.device)  # layers may lie on several GPUs
        return row_shares(total_BPC.tril_(start - 1))


class LayeredPanels(_Panels):
    """Row panels of a capacity by layer, from the first chosen layer to the last; recomputed when asked for.

    Args:
        layers: A capacity of each chosen layer.
    """

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self._layers)

    def rows(self, layer: int, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` of a layer over columns `0..stop`, the diagonal included; each sums to 1."""
        given_BPC = self._layers[layer].contributions(start, stop).to(self.device)
        # Padding may hold nothing and be given nothing; a walk that is there stays.
        add_to_diagonal(given_BPC, start, (given_BPC.sum(-1) == 0).to(given_BPC.dtype))
        return row_shares(given_BPC)
