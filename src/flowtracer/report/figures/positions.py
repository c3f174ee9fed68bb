"""Flow over positions: of one trace token by token, of many over the place between prompt and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowtracer.report.figures.style import (
    BLUE,
    GREY,
    GROUP_COLOURS,
    LABELLED_STEPS,
    LIGHT,
    ORANGE,
    WIDTH,
    groups,
    percent,
    plain,
)
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.trace.measures import reasoning
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.figure import Figure  # isort: skip
from matplotlib.patches import Patch  # isort: skip

AXES_POINTS = 72 * 0.9 * WIDTH
"""Points from left to right between the axes of a wide figure, about."""
PARTS = 20
"""Of the reasoning, where many traces are laid over each other."""


def plot_positions(traces: Sequence[Trace]) -> Figure:
    """Flow through each token in reading order."""
    return _positions_of_one(traces[0]) if len(traces) == 1 else _positions_of_many(traces)


def _positions_of_one(trace: Trace) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    axes = figure.subplots()
    flow, end = trace.flow, len(trace)
    inside = ~trace.sink.mask(end)
    top = 1.08 * float(flow[inside].max(initial=0)) or 1.0
    hubs = trace.hubs()
    marked = np.zeros(end, dtype=bool)
    marked[[token for hub in hubs for token in hub.unit.span]] = True
    prompt = np.arange(end) < trace.response.start
    for chosen, colour in ((prompt & inside, GREY), (~prompt & ~marked & inside, BLUE), (marked, ORANGE)):
        _bars(axes, np.flatnonzero(chosen), flow, colour)
    axes.axvspan(trace.answer.start - 0.5, trace.answer.stop - 0.5, color=LIGHT, lw=0)
    if len(trace.step_spans) <= LABELLED_STEPS:
        for span in trace.step_spans[1:]:
            axes.axvline(span.start - 0.5, color=LIGHT, lw=0.6, zorder=0)
    axes.set(xlim=(-0.5, end - 0.5), ylim=(0, top), xlabel="token", ylabel="share of flow that passes")
    axes.yaxis.set_major_formatter(percent)
    _label_above(axes, [(hub.token, plain(hub.label, 14)) for hub in hubs], flow, top, end)
    parts = {"prompt": GREY, "response": BLUE, "hub": ORANGE, "answer": LIGHT}
    handles = [Patch(color=colour, label=name) for name, colour in parts.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1, handleheight=0.8)
    return figure


def _bars(axes: Any, tokens: Int[ndarray, " N"], flow: Float[ndarray, " T"], colour: str) -> None:
    """A bar for each token; wide enough to be seen in a long trace."""
    points = AXES_POINTS / len(flow)
    axes.vlines(tokens, 0, flow[tokens], color=colour, lw=min(max(0.8 * points, 0.5), 6), capstyle="butt")


def _label_above(
    axes: Any, labels: Sequence[tuple[int, str]], flow: Float[ndarray, " T"], top: float, end: int
) -> None:
    """Names in a row above the axes, spread so that none covers another, with a line to each bar."""
    ordered = sorted(labels)
    # Widths in axes' fractions: a letter of 7.5 points is about 4.6 points wide.
    widths = [(4.6 * len(text) + 7) / AXES_POINTS for _, text in ordered]
    wanted = [(token + 0.5) / end for token, _ in ordered]
    line = {"color": ORANGE, "lw": 0.5, "clip_on": False, "zorder": 0}
    for (token, text), place in zip(ordered, _spread(wanted, widths), strict=True):
        # Down to the top of the axes aslant, then straight down to the bar, so that no line crosses another's bar.
        axes.plot([place * end - 0.5, token, token], [1.08 * top, 1.01 * top, flow[token]], **line)
        axes.text(place, 1.09, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=7.5)


def _spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Centres near the wanted ones, in their order, at least half of both widths apart and within 0..1."""
    places: list[float] = []
    edge = 0.0
    for place, width in zip(wanted, widths, strict=True):
        places.append(max(place, edge + width / 2))
        edge = places[-1] + width / 2
    edge = 1.0
    for index in reversed(range(len(places))):
        places[index] = min(places[index], edge - widths[index] / 2)
        edge = places[index] - widths[index] / 2
    return places


def _positions_of_many(traces: Sequence[Trace]) -> Figure:
    figure = Figure(figsize=(WIDTH / 2, 2.3), layout="constrained")
    axes = figure.subplots()
    centres = (np.arange(PARTS) + 0.5) / PARTS
    for name, members in groups(traces).items():
        shares = np.array([share for trace in members if (share := _flow_by_place(trace, PARTS)) is not None])
        if not len(shares):
            continue
        low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75), axis=0)
        colour = GROUP_COLOURS[name]
        axes.fill_between(centres, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(centres, middle, color=colour, lw=1.4, label=f"{name} ({len(shares)})")
    axes.axhline(1, color=GREY, lw=0.6, ls=(0, (4, 3)))
    axes.set(xlim=(0, 1), xlabel="place between prompt and answer", ylabel="flow over its mean")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(percent)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="median, quartiles", title_fontsize=7.5)
    return figure


def _flow_by_place(trace: Trace, bins: int) -> Float[ndarray, " N"] | None:
    """Mean flow of the tokens in each part of the reasoning, over the mean of all; None where nothing flows."""
    flow = trace.flow[reasoning(trace)]
    if not flow.sum() > 0:
        return None
    # A token that lies across a border counts in both parts, by how much of it lies there.
    steps = np.interp(np.linspace(0, len(flow), bins + 1), np.arange(len(flow) + 1), np.append(0, flow.cumsum()))
    return np.diff(steps) * bins / flow.sum()
