"""A comparison as a picture: learning curves, and differences to the baseline by seed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from flowtracer.folders import write_atomically
from flowtracer.report.figures.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILLION, WIDTH, save_figure, styled
from flowtracer.study.differences import ComparedRun, StudyComparison
from flowtracer.study.statistics import student_interval
from flowtracer.study.tables import markdown, measured, seeds_of

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.axes import Axes  # isort: skip
from matplotlib.figure import Figure  # isort: skip

FORMATS = ("svg", "png")
_COLOURS = (INK, ORANGE, BLUE, VERMILLION, GREEN, SKY, "#CC79A7")
_STYLES = [(colour, dash) for dash in ("-", "--", ":") for colour in _COLOURS]


def plot_comparison(comparison: StudyComparison) -> Figure:
    """Learning curves on the left, differences to the baseline on the right."""
    with styled():
        figure = Figure(figsize=(WIDTH, 3.0 + 0.1 * len(comparison.runs)), layout="constrained")
        curves, differences = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_curves(curves, comparison)
        _draw_differences(differences, comparison)
        figure.legend(loc="outside lower center", ncols=4)
        return figure


def write_comparison(comparison: StudyComparison, folder: Path) -> list[Path]:
    """Write the table and the picture, named after the study."""
    folder.mkdir(parents=True, exist_ok=True)
    text = write_atomically(folder / f"{comparison.study}.md", markdown(comparison))
    figure = plot_comparison(comparison)
    return [text, *(save_figure(figure, folder / f"{comparison.study}.{suffix}") for suffix in FORMATS)]


def _draw_curves(axes: Axes, comparison: StudyComparison) -> None:
    for run, (colour, dash) in zip(comparison.runs, itertools.cycle(_STYLES), strict=False):
        points = [student_interval(values_S) for values_S in run.values_SN.T]
        scale = _scale(comparison)
        mean, low, high = (scale * np.array([getattr(p, name) for p in points]) for name in ("mean", "low", "high"))
        axes.plot(comparison.evaluated_N, mean, dash, color=colour, label=run.label, marker="o", markersize=2.5)
        if len(run.values_SN) > 1:
            axes.fill_between(comparison.evaluated_N, low, high, color=colour, alpha=0.08, linewidth=0)
    own = comparison.metric is None
    axes.set(
        xlabel="GRPO steps" if own else "steps",
        ylabel="held-out accuracy, greedy (%)" if own else measured(comparison),
    )
    axes.set_title(f"{comparison.study}: mean of {seeds_of(comparison)}, 95 % interval")


def _draw_differences(axes: Axes, comparison: StudyComparison) -> None:
    """Every seed as a dot, the mean with its interval beside them."""
    shown = [
        (run, style)
        for run, style in zip(comparison.runs, itertools.cycle(_STYLES), strict=False)
        if run.final_difference is not None
    ]
    axes.axvline(0, color=GREY, linewidth=0.6)
    for place, (run, (colour, _)) in enumerate(shown):
        _draw_difference(axes, place, run, comparison, colour)
    axes.set_yticks(range(len(shown)), [run.label for run, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set(xlabel=f"{'points ' if comparison.metric is None else ''}over {comparison.baseline}")
    axes.set_title("after the last step, by seed")


def _draw_difference(axes: Axes, place: int, run: ComparedRun, comparison: StudyComparison, colour: str) -> None:
    scale, last_S = _scale(comparison), comparison.base.values_SN[:, -1]
    dots_S = scale * (run.values_SN[:, -1] - (last_S if comparison.paired else last_S.mean()))
    axes.plot(dots_S, np.full(len(dots_S), place + 0.18), "o", color=colour, markersize=2.5, alpha=0.6)
    found = run.final_difference
    if found is not None and not math.isnan(found.low):
        axes.plot([scale * found.low, scale * found.high], [place, place], color=colour, linewidth=1.2)
        axes.plot(scale * found.mean, place, "D", color=colour, markersize=4)


def _scale(comparison: StudyComparison) -> int:
    """Accuracies are drawn in percent."""
    return 100 if comparison.metric is None else 1
