"""Flow from step to step; of many traces, between tenths of their reasoning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowtracer.report.figures.style import INK, LABELLED_STEPS, SEQUENTIAL, WIDTH, percent, plain
from flowtracer.shapes import Float, ndarray
from flowtracer.trace.measures import reasoning
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.colors import PowerNorm  # isort: skip
from matplotlib.figure import Figure  # isort: skip

TENTHS = 10


def plot_steps(traces: Sequence[Trace]) -> Figure:
    """Flow from step to step; of many traces, between tenths of their reasoning."""
    if len(traces) == 1:
        trace = traces[0]
        names = ["prompt", *(plain(step.text, 36) for step in trace.steps()[1:])]
        return _matrix(trace.step_flow, [f"{name}   {n}" for n, name in enumerate(names)], "step")
    names = ["prompt", *(f"{10 * n}-{10 * (n + 1)}%" for n in range(TENTHS)), "answer"]
    return _matrix(np.mean([_flow_between_tenths(trace) for trace in traces], 0), names, "part of the reasoning")


def _flow_between_tenths(trace: Trace) -> Float[ndarray, "N N"]:
    """Flow along kept edges between the prompt, each tenth of the reasoning, and the answer."""
    part = np.zeros(len(trace), dtype=int)
    inside = np.flatnonzero(reasoning(trace))
    part[inside] = 1 + np.arange(len(inside)) * TENTHS // max(len(inside), 1)
    part[min(trace.answer.start, trace.sink.start) :] = TENTHS + 1
    matrix = np.zeros((TENTHS + 2, TENTHS + 2))
    np.add.at(matrix, (part[trace.edges.source], part[trace.edges.target]), trace.edges.flow)
    return matrix


def _matrix(flow: Float[ndarray, "S S"], names: Sequence[str], what: str) -> Figure:
    """Flow from each part (rows) to each later one (columns); what stays within a part is left out."""
    size = len(flow)
    shown = np.where(np.tri(size, dtype=bool), np.nan, flow)[:-1, 1:] if size > 1 else np.full((1, 1), np.nan)
    named = size <= LABELLED_STEPS
    width = min(WIDTH, 3.4 + 0.34 * size) if named else 5
    figure = Figure(figsize=(width, 0.8 + min(max(0.19 * size, 1.3), 5.2 if named else 3.6)), layout="constrained")
    axes = figure.subplots()
    # A square root shows the many small flows beside the few large ones.
    norm = PowerNorm(0.5, vmin=0, vmax=max(float(np.nanmax(shown, initial=0)), 1e-9))
    # Rows are counted from part 0, columns from part 1.
    edges = (0.5, shown.shape[1] + 0.5, len(shown) - 0.5, -0.5)
    image = axes.imshow(shown, cmap=SEQUENTIAL, norm=norm, interpolation="nearest", aspect="auto", extent=edges)
    axes.set(xlabel=f"to {what}", ylabel=f"from {what}")
    if named:
        targets = [name.rsplit("   ")[-1] for name in names[1:]]
        axes.set_yticks(range(len(shown)), names[: len(shown)])
        axes.set_xticks(range(1, size), targets, rotation=90 if max(map(len, targets), default=0) > 2 else 0)
    axes.tick_params(length=0 if named else 3)
    axes.spines[:].set_visible(not named)
    if size <= 14:
        for i, j in zip(*np.nonzero(shown >= 0.005), strict=True):
            colour = "white" if norm(shown[i, j]) > 0.6 else INK
            axes.text(j + 1, i, f"{100 * shown[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
    figure.colorbar(image, ax=axes, format=percent, label="flow", pad=0.01, aspect=24).outline.set_visible(False)
    return figure
