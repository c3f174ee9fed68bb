"""Attention itself, as the paper has it; with depth unrolled, half of each step is the residual stream's.

Over (token, layer) a walk needs a chance to stay where it is. As in attention rollout (Abnar and Zuidema 2020,
arXiv 2005.00928) the residual stream counts as much as all heads together: `I + mean_h W_h`.
"""

from __future__ import annotations

from torch import Tensor

from flowtracer.attention.capacity.base import LayerCapacity, add_to_diagonal
from flowtracer.shapes import Float


class PlainCapacity(LayerCapacity):
    """`mean_h W_h[k,i]`, and 1 more on the diagonal; only the graph over layers takes it from here."""

    def contributions(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Mean attention, and as much for the token itself as for all heads together."""
        mean_BPC = self.layer.weights(start, stop).mean(1)
        add_to_diagonal(mean_BPC, start, 1.0)
        return mean_BPC
