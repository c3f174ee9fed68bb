"""What a capacity is: how much each token gives to each later one in one layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.values import LayerValues
from flowtracer.errors import InputError
from flowtracer.shapes import Float

Read = TypeVar("Read")

Asked = AbstractSet[str]
"""What must be read beside queries and keys: "values", "projection", "residual", "gradient"."""


class LayerCapacity(ABC):
    """Contributions of tokens to later ones in one layer.

    Args:
        layer: What the layer attends with, and its values as far as `tokens` or `layered` ask for them.
    """

    tokens: ClassVar[Asked] = frozenset()
    """What the graph on tokens asks for."""
    layered: ClassVar[Asked] = frozenset()
    """What the graph on tokens and layers asks for, where what a token keeps of its own counts too."""

    def __init__(self, layer: LayerAttention) -> None:
        self.layer = layer

    @property
    def values(self) -> LayerValues:
        """What the layer's attention moves."""
        return there(self.layer.values, "values")

    @abstractmethod
    def contributions(self, start: int, stop: int) -> Float[Tensor, "B P C"]:
        """Of tokens `0..stop` to tokens `start..stop`: not negative, zero above the diagonal.

        On the diagonal stands what a token gives to itself, what it keeps included where that was read.
        """


def row_shares(weights_BPC: Float[Tensor, "B P C"]) -> Float[Tensor, "B P C"]:
    """Each row over its sum, in place; a row of zeros stays one, and NaN stays visible."""
    tiny = torch.finfo(weights_BPC.dtype).tiny
    return weights_BPC.div_(weights_BPC.sum(-1, keepdim=True).clamp_min(tiny))


def add_to_diagonal(weights_BPC: Float[Tensor, "B P C"], start: int, kept_BP: Float[Tensor, "B P"] | float) -> None:
    """Add to the entries of tokens to themselves, in rows that begin at token `start`."""
    weights_BPC[:, :, start:].diagonal(dim1=1, dim2=2).add_(kept_BP)


def there(read: Read | None, name: str) -> Read:
    """What a capacity needs, where it was read.

    Raises:
        InputError: It was not.
    """
    if read is None:
        raise InputError(
            f"expected layers that were read with their {name}, got none: give the reader the same capacity and graph"
        )
    return read
