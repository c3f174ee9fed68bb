"""Sequences of a batch that begin alike: the rows of attention that they share are computed once.

Attention is causal: as far as two sequences hold the same tokens at the same places, their rows of `W` are the same. So
the responses of a group, which answer one prompt, share all its rows, and any rollouts share what their chat template
begins with. For a panel of rows, only sequences that differ from all earlier ones up to its last row are computed; the
others get a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.shapes import Float, Int


class SharedPrefixPanels:
    """Row panels of attention, each distinct beginning computed once; otherwise `AttentionPanels`.

    Args:
        layers: What the chosen layers attend with.
        ids_BT: Token ids of the batch.
        mask_BT: 1 on tokens, 0 on padding; None for no padding.
    """

    def __init__(
        self, layers: Sequence[LayerAttention], ids_BT: Int[Tensor, "B T"], mask_BT: Tensor | None = None
    ) -> None:
        self._layers = list(layers)
        self._whole = AttentionPanels(self._layers)
        self.batch, self.length, self.device = self._whole.batch, self._whole.length, self._whole.device
        self.panel_rows = self._whole.panel_rows
        self._shared_BB = _common_prefixes(ids_BT, mask_BT)
        self._few: tuple[tuple[int, ...], AttentionPanels] = ((), self._whole)

    def rows(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Rows `start..stop` over columns `0..stop`, strictly lower triangular."""
        # The first sequence that agrees with each one up to the panel's last row; every one agrees with itself.
        first_B = (self._shared_BB >= stop).int().argmax(1)
        distinct, place_B = first_B.unique(return_inverse=True)
        if len(distinct) == self.batch:
            return self._whole.rows(start, stop)
        return self._of(tuple(distinct.tolist())).rows(start, stop)[place_B.to(self.device)]

    def _of(self, sequences: tuple[int, ...]) -> AttentionPanels:
        """Panels of some sequences alone; panel after panel asks for the same ones."""
        if self._few[0] != sequences:
            layers = [layer.with_sequences(sequences) for layer in self._layers]
            self._few = (sequences, AttentionPanels(layers, panel_rows=self.panel_rows))
        return self._few[1]


def attention_panels(
    layers: Sequence[LayerAttention], ids_BT: Int[Tensor, "B T"], mask_BT: Tensor | None = None
) -> AttentionPanels | SharedPrefixPanels:
    """The panels of a batch, whatever its sequences share; masks by a rule on indices are taken as they are."""
    shareable = len(ids_BT) > 1 and all(layer.mask is None or isinstance(layer.mask, Tensor) for layer in layers)
    return SharedPrefixPanels(layers, ids_BT, mask_BT) if shareable else AttentionPanels(layers)


def _common_prefixes(ids_BT: Int[Tensor, "B T"], mask_BT: Tensor | None) -> Int[Tensor, "B B"]:
    """How many columns from the first on each sequence has in common with each, token by token."""
    marked_BT = ids_BT if mask_BT is None else ids_BT.masked_fill(mask_BT == 0, -1)
    marked_BT = marked_BT.cpu()
    return torch.stack([(marked_BT == one_T).long().cumprod(1).sum(1) for one_T in marked_BT])
