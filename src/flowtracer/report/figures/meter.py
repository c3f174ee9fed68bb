"""What strategies are worth as a picture: worth over plain GRPO with intervals, in the plain and in Adam's metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowtracer.checks.meter import MeterResult
from flowtracer.checks.meter.worth import UNIFORM, Worth
from flowtracer.report.figures.style import BLUE, GREY, INK, ORANGE, VERMILLION, WIDTH, save_figure, styled

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.axes import Axes  # isort: skip
from matplotlib.figure import Figure  # isort: skip

FORMATS = ("svg", "png")
_WIDEST = 3.0
"""Intervals of Adam's metric may be as wide as its whole axis: it ends at so many times the widest mean."""


def plot_worth(result: MeterResult) -> Figure:
    """Strategies down, the largest worth on top; ceilings and the best mix are drawn hollow."""
    rows = [worth for worth in result.worths if worth.kind != "flattered" and worth.name != UNIFORM]
    rows += [result.mix.worth] if result.mix is not None else []
    rows.sort(key=lambda worth: -worth.plain.mean)
    with styled():
        figure = Figure(figsize=(WIDTH, 0.8 + 0.17 * len(rows)), layout="constrained")
        plain, adam = figure.subplots(1, 2, sharey=True)
        _draw(plain, rows, adam=False)
        _draw(adam, rows, adam=True)
        plain.set_yticks(range(len(rows)), [row.name.replace(":keep=bottom", ", bottom") for row in rows])
        plain.set_ylim(len(rows) - 0.5, -0.5)
        # It begins above the names: beside long ones its axes are too narrow for it, and it would run into the next.
        plain.set_title(f"worth over plain GRPO, {result.minibatches} minibatches", x=-0.25)
        adam.set_title("in Adam's metric")
        return figure


def write_worth(result: MeterResult, folder: Path, name: str = "meter") -> list[Path]:
    """Write the picture in every format."""
    figure = plot_worth(result)
    return [save_figure(figure, folder / f"{name}.{suffix}") for suffix in FORMATS]


def _draw(axes: Axes, rows: Sequence[Worth], *, adam: bool) -> None:
    axes.axvline(0, color=GREY, linewidth=0.6)
    widest = 0.0
    for place, row in enumerate(rows):
        interval = row.adam if adam else row.plain
        if interval is None:
            continue
        mean, low, high = (100 * (value - 1) for value in (interval.mean, interval.low, interval.high))
        colour = _colour(row, low, high)
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt")
        axes.plot(mean, place, "o", color=colour, markersize=3.5, markerfacecolor=_fill(row, colour))
        widest = max(widest, abs(mean))
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, -_WIDEST * widest), min(right, _WIDEST * widest))
    axes.set_xlabel("percent")
    axes.grid(axis="y", linewidth=0.3)


def _colour(row: Worth, low: float, high: float) -> str:
    """Blue is worth more than plain GRPO, vermillion less, grey cannot be told from it."""
    if row.kind != "strategy":
        return ORANGE
    if low > 0:
        return BLUE
    return VERMILLION if high < 0 else INK


def _fill(row: Worth, colour: str) -> str:
    return colour if row.kind == "strategy" else "white"
