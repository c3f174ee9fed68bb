"""Capacity: what an edge of the graph may be, one file a variant."""

from flowtracer.attention.capacity.alti import AltiCapacity
from flowtracer.attention.capacity.base import LayerCapacity, there
from flowtracer.attention.capacity.gradient import GradientCapacity
from flowtracer.attention.capacity.panels import CapacityPanels, LayeredPanels
from flowtracer.attention.capacity.plain import PlainCapacity
from flowtracer.attention.capacity.value import ValueCapacity

__all__ = ["CAPACITIES", "GRAPHS", "CapacityPanels", "LayerCapacity", "LayeredPanels", "asked", "there"]

CAPACITIES: dict[str, type[LayerCapacity]] = {
    "attention": PlainCapacity,
    "value": ValueCapacity,
    "gradient": GradientCapacity,
    "alti": AltiCapacity,
}

GRAPHS = ("tokens", "layered")
"""Layers summed into one graph on tokens, or a node for each token at each layer."""


def asked(capacity: str, graph: str) -> frozenset[str]:
    """What must be read beside queries and keys: names among "values", "projection", "residual", "gradient"."""
    chosen = CAPACITIES[capacity]
    return frozenset(chosen.tokens if graph == "tokens" else chosen.layered)
