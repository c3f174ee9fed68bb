"""Layers and heads: how the flow is shared among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowtracer.errors import InputError
from flowtracer.report.figures.style import BLUE, GREY, SEQUENTIAL, SKY, WIDTH, percent
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.figure import Figure  # isort: skip
from matplotlib.ticker import MaxNLocator  # isort: skip


def plot_layers(traces: Sequence[Trace]) -> Figure:
    """Share of the flow that each head gives, and each layer."""
    if not same_layers(traces):
        raise InputError("expected traces that looked at the heads of the same layers, got others; trace them anew")
    layers, flows = traces[0].layers, [trace.head_flow for trace in traces]
    head_flow, by_layer = np.mean(flows, 0), np.array([flow.sum(1) for flow in flows])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.16 * max(len(layers), 6)), layout="constrained")
    heads, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    image = heads.imshow(head_flow, cmap=SEQUENTIAL, vmin=0, aspect="auto", interpolation="nearest")
    heads.set(xlabel="head", ylabel="layer", title="share of the flow by head")
    heads.xaxis.set_major_locator(MaxNLocator(integer=True))
    heads.tick_params(length=0)
    heads.set_yticks(range(len(layers)), [str(layer) for layer in layers])
    heads.spines[:].set_visible(False)
    figure.colorbar(image, ax=heads, format=percent, pad=0.01, aspect=16).outline.set_visible(False)
    places = np.arange(len(layers))
    bars.barh(places, by_layer.mean(0), 0.7, color=SKY)
    if len(flows) > 1:
        jitter = np.random.default_rng(0).uniform(-0.25, 0.25, by_layer.shape)
        bars.plot(by_layer, places + jitter, ".", color=BLUE, ms=2, alpha=0.5)
    bars.axvline(1 / len(layers), color=GREY, lw=0.6, ls=(0, (4, 3)))
    bars.xaxis.set_major_formatter(percent)
    bars.set(xlabel="share of the flow (dashed: all layers alike)", title="by layer")
    bars.tick_params(axis="y", length=0, labelleft=False)
    return figure


def same_layers(traces: Sequence[Trace]) -> bool:
    """Whether each trace looked at the heads of the same layers."""
    return all(trace.head_flow.size and trace.layers == traces[0].layers for trace in traces)
