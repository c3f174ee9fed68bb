"""Matrices of layers that are stored, or kept between the sweeps."""

from __future__ import annotations

from torch import Tensor

from flowtracer.flow.solution import LayerPanelSource
from flowtracer.flow.solve import matrix_bytes
from flowtracer.shapes import Float


class LayerMatrices:
    """Row panels of stored matrices; rows are divided by their sums, and what stands above the diagonal is ignored."""

    def __init__(self, matrix_LBTT: Float[Tensor, "L B T T"], *, panel_rows: int = 128) -> None:
        matrix_LBTT = matrix_LBTT.tril()
        self._matrix_LBTT = matrix_LBTT / matrix_LBTT.sum(-1, keepdim=True)
        self.panel_rows = panel_rows
        self.layers, self.batch, self.length, _ = matrix_LBTT.shape
        self.device = matrix_LBTT.device

    def rows(self, layer: int, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` of a layer over columns `0..stop`."""
        return self._matrix_LBTT[layer, :, start:stop, :stop]


class CachedLayers:
    """Remembers the panels of another source, so that later sweeps recompute none: half of T^2 a layer in memory."""

    def __init__(self, source: LayerPanelSource) -> None:
        self._source = source
        self._panels: dict[tuple[int, int, int], Tensor] = {}
        self.batch, self.length, self.layers = source.batch, source.length, source.layers
        self.panel_rows, self.device = source.panel_rows, source.device

    def rows(self, layer: int, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` of a layer over columns `0..stop`."""
        key = layer, start, stop
        if key not in self._panels:
            self._panels[key] = self._source.rows(layer, start, stop)
        return self._panels[key]


def layers_within_budget(panels: LayerPanelSource, budget: int) -> LayerPanelSource:
    """Keep the matrices between the sweeps where they fit the budget in bytes, else recompute them."""
    return CachedLayers(panels) if panels.layers * matrix_bytes(panels.batch, panels.length) <= budget else panels
