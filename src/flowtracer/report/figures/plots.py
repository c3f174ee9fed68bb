"""Figures for papers, from one trace or from many.

Each function takes traces and returns a matplotlib figure. Of one trace it shows the tokens and steps themselves; of
many, means with their spread, right and wrong responses apart where they were graded. Responses differ in length, so
many of them are laid over each other by the relative position of their tokens between prompt and answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.report.figures.categories import CATEGORIES, category
from flowtracer.report.figures.style import (
    BLUE,
    GREY,
    GROUP_COLOURS,
    INK,
    LIGHT,
    ORANGE,
    SEQUENTIAL,
    SKY,
    WIDTH,
    percent,
    plain,
    styled,
)
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.trace.measures import concentration_curve, reasoning, verdict
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.colors import PowerNorm  # isort: skip
from matplotlib.figure import Figure  # isort: skip
from matplotlib.patches import Patch  # isort: skip
from matplotlib.ticker import MaxNLocator  # isort: skip

FORMATS = ("svg", "pdf", "png")
TENTHS = 10
HUBS = 10
"""Hubs of each trace that are counted by category."""
AXES_POINTS = 72 * 0.9 * WIDTH
"""Points from left to right between the axes of a wide figure, about."""
LABELLED_STEPS = 40
"""Up to so many steps are named; more names than that cannot be read."""


def groups(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Right and wrong responses where both exist, else all as one group."""
    graded = {name: [trace for trace in traces if verdict(trace) == name] for name in ("right", "wrong")}
    return graded if all(graded.values()) else {"all": list(traces)}


# Flow over positions


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
    marked[[hub.token for hub in hubs]] = True
    prompt = np.arange(end) < trace.response.start
    for chosen, colour in ((prompt & inside, GREY), (~prompt & ~marked & inside, BLUE), (marked, ORANGE)):
        _bars(axes, np.flatnonzero(chosen), flow, colour)
    axes.axvspan(trace.answer.start - 0.5, trace.answer.stop - 0.5, color=LIGHT, lw=0)
    if len(trace.step_spans) <= LABELLED_STEPS:
        for span in trace.step_spans[1:]:
            axes.axvline(span.start - 0.5, color=LIGHT, lw=0.6, zorder=0)
    axes.set(xlim=(-0.5, end - 0.5), ylim=(0, top), xlabel="token", ylabel="share of flow that passes")
    axes.yaxis.set_major_formatter(percent)
    _label_above(axes, [(hub.token, plain(trace.label(hub.token), 14)) for hub in hubs], flow, top, end)
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
    centres = (np.arange(2 * TENTHS) + 0.5) / (2 * TENTHS)
    for name, members in groups(traces).items():
        shares = np.array([share for trace in members if (share := _flow_by_place(trace, 2 * TENTHS)) is not None])
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


# Concentration


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


# Categories


def plot_categories(traces: Sequence[Trace]) -> Figure:
    """Kinds of tokens: their share of all reasoning tokens, of the flow, and of the hubs."""
    figure = Figure(figsize=(WIDTH / 2, 2.5), layout="constrained")
    axes = figure.subplots()
    shares = category_shares(traces)
    places = np.arange(len(CATEGORIES))
    for offset, (name, colour) in zip((-0.27, 0, 0.27), zip(shares, (GREY, SKY, BLUE), strict=True), strict=True):
        bars = axes.barh(places + offset, shares[name], 0.25, color=colour, label=name)
        axes.bar_label(bars, [percent(round(share, 2)) for share in shares[name]], padding=2, fontsize=6.5)
    axes.set_yticks(places, CATEGORIES)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(share.max() for share in shares.values()) or 1)
    axes.xaxis.set_major_formatter(percent)
    axes.set_xlabel("share")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="best")
    return figure


def category_shares(traces: Sequence[Trace]) -> Mapping[str, Float[ndarray, " N"]]:
    """Share of each of `CATEGORIES` among the tokens of the reasoning, in their flow, and among the hubs; means."""
    hub_row = f"top {HUBS} hubs"
    rows: dict[str, list[np.ndarray]] = {"tokens": [], "flow": [], hub_row: []}
    for trace in traces:
        tokens = np.flatnonzero(reasoning(trace))
        kinds = {int(t): CATEGORIES.index(category(trace.label(int(t)))) for t in tokens}
        hubs = [kinds[hub.token] for hub in trace.hubs(HUBS) if hub.token in kinds]
        for row, members, weights in (
            (hub_row, hubs, np.ones(len(hubs))),
            ("flow", list(kinds.values()), trace.flow[tokens]),
            ("tokens", list(kinds.values()), np.ones(len(tokens))),
        ):
            if weights.sum() > 0:
                counts = np.bincount(np.array(members, dtype=int), weights, len(CATEGORIES))
                rows[row].append(counts / weights.sum())
    return {name: np.mean(found, 0) if found else np.zeros(len(CATEGORIES)) for name, found in rows.items()}


# Layers and heads


def plot_layers(traces: Sequence[Trace]) -> Figure:
    """Share of the flow that each head gives, and each layer."""
    if "layers" not in drawable(traces):
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


# Steps


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


FIGURES: dict[str, Callable[[Sequence[Trace]], Figure]] = {
    "positions": plot_positions,
    "concentration": plot_concentration,
    "categories": plot_categories,
    "layers": plot_layers,
    "steps": plot_steps,
}


def drawable(traces: Sequence[Trace]) -> list[str]:
    """The figures that these traces allow: layers only where each looked at the heads of the same ones."""
    alike = all(trace.head_flow.size and trace.layers == traces[0].layers for trace in traces)
    return [name for name in FIGURES if name != "layers" or alike]


def draw(name: str, traces: Sequence[Trace]) -> Figure:
    """A figure of `FIGURES` in this package's style.

    Raises:
        InputError: No such figure, no trace, or traces without what the figure shows.
    """
    if name not in FIGURES:
        raise InputError(f"expected a figure among {list(FIGURES)}, got {name!r}")
    if not traces:
        raise InputError("expected at least one trace to draw, got none")
    with styled():
        return FIGURES[name](traces)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure in the format that the name ends in; the same figure gives the same bytes."""
    undated: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with styled():
        figure.savefig(path, metadata=undated.get(path.suffix))
    return path


def write_plots(
    traces: Sequence[Trace], out: Path, *, names: Sequence[str] | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw figures of one trace or of many together, each in every format; None for all that the traces allow.

    Raises:
        InputError: An unknown figure or format, or a folder that cannot be written.
    """
    if not set(formats) <= set(FORMATS):
        raise InputError(f"expected formats among {list(FORMATS)}, got {list(formats)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {str(out)!r}: {error}") from error
    written = []
    for name in drawable(traces) if names is None else names:
        figure = draw(name, traces)
        written += [save_figure(figure, out / f"{name}.{suffix}") for suffix in formats]
    return written
