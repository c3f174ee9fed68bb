"""Kinds of tokens: their share of the tokens, of the flow and of the hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flowtracer.report.figures.categories import CATEGORIES, category
from flowtracer.report.figures.style import BLUE, GREY, SKY, WIDTH, percent
from flowtracer.shapes import Float, ndarray
from flowtracer.trace.measures import reasoning
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.figure import Figure  # isort: skip

HUBS = 10
"""Hubs of each trace that are counted by category."""


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
        hubs = [kinds[hub.token] for hub in trace.hubs(HUBS, level="tokens") if hub.token in kinds]
        for row, members, weights in (
            (hub_row, hubs, np.ones(len(hubs))),
            ("flow", list(kinds.values()), trace.flow[tokens]),
            ("tokens", list(kinds.values()), np.ones(len(tokens))),
        ):
            if weights.sum() > 0:
                counts = np.bincount(np.array(members, dtype=int), weights, len(CATEGORIES))
                rows[row].append(counts / weights.sum())
    return {name: np.mean(found, 0) if found else np.zeros(len(CATEGORIES)) for name, found in rows.items()}
