"""Flow concentration: how much of the flow few tokens carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowtracer.report.figures.style import BLUE, GREY, GROUP_COLOURS, WIDTH, groups, percent
from flowtracer.trace.measures import concentration_curve
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.figure import Figure  # isort: skip


def plot_concentration(traces: Sequence[Trace]) -> Figure:
    """Share of the reasoning's flow on its top x % of tokens."""
    figure = Figure(figsize=(WIDTH / 2, 2.5), layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(0, 1, 201)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls=(0, (4, 3)))
    axes.text(
        0.44, 0.42, "all tokens alike", rotation=45, transform_rotates_text=True, rotation_mode="anchor",
        transform=axes.transData, ha="center", va="top", fontsize=7, color=GREY,
    )  # fmt: skip
    for name, members in groups(traces).items():
        curves = np.array([curve for trace in members if (curve := concentration_curve(trace, grid)) is not None])
        if not len(curves):
            continue
        mean, colour = curves.mean(0), GROUP_COLOURS[name] if len(traces) > 1 else BLUE
        if 1 < len(curves) <= 200:
            axes.plot(grid, curves.T, color=colour, lw=0.4, alpha=0.25)
        at = float(np.interp(0.2, grid, mean))
        axes.plot([0.2], [at], "o", color=colour, ms=3.5)
        who = f"{name} ({len(curves)}): " if len(traces) > 1 else ""
        axes.plot(grid, mean, color=colour, lw=1.6, label=f"{who}{percent(round(at, 2))} of the flow")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="tokens, largest flow first", ylabel="share of the reasoning's flow")
    axes.xaxis.set_major_formatter(percent)
    axes.yaxis.set_major_formatter(percent)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="on the top 20% of tokens", title_fontsize=7.5, loc="lower right", borderaxespad=0.2)
    return figure
