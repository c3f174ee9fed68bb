"""A comparison as a table in Markdown and as a picture: learning curves, and differences to the baseline by seed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from flowtracer.folders import write_atomically
from flowtracer.intervals import Interval
from flowtracer.report.figures.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILLION, WIDTH, save_figure, styled
from flowtracer.study.differences import ComparedRun, StudyComparison, student_interval

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.axes import Axes  # isort: skip
from matplotlib.figure import Figure  # isort: skip

FORMATS = ("svg", "png")
_COLOURS = (INK, ORANGE, BLUE, VERMILLION, GREEN, SKY, "#CC79A7")
_STYLES = [(colour, dash) for dash in ("-", "--", ":") for colour in _COLOURS]


def table(comparison: StudyComparison) -> str:
    """The comparison in Markdown."""
    starts = {round(float(run.accuracies_SN[:, 0].mean()), 4) for run in comparison.runs}
    lines = [
        f"# {comparison.study}",
        "",
        f"Greedy accuracy on {comparison.problems} held-out problems after {comparison.steps} steps "
        f"({comparison.epochs:.3g} passes over the training problems), {_seeds(comparison)}; "
        f"before training {' and '.join(f'{100 * start:.1f} %' for start in sorted(starts))}. "
        "Mean and 95 % interval over seeds (Student); differences are paired by seed, p is Holm's.",
        "",
        f"| run | accuracy | minus {comparison.baseline} | p | curve's mean, minus {comparison.baseline} "
        "| tokens a response | seconds a step | in credit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in comparison.runs:
        cells = [
            run.label,
            _percent(run.final),
            "" if run.final_difference is None else _percent(run.final_difference, sign=True),
            "" if run.p_corrected is None else _number(run.p_corrected),
            "" if run.average_difference is None else _percent(run.average_difference, sign=True),
            f"{run.response_tokens:.0f}",
            f"{run.step_seconds:.2f}",
            f"{run.credit_seconds / run.step_seconds:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    when = " to ".join(dict.fromkeys((comparison.dates[0], comparison.dates[-1])))
    return "\n".join([*lines, "", f"Measured on {'; '.join(comparison.machines)}; {when}."]) + "\n"


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
    text = write_atomically(folder / f"{comparison.study}.md", table(comparison))
    figure = plot_comparison(comparison)
    return [text, *(save_figure(figure, folder / f"{comparison.study}.{suffix}") for suffix in FORMATS)]


def _draw_curves(axes: Axes, comparison: StudyComparison) -> None:
    for run, (colour, dash) in zip(comparison.runs, itertools.cycle(_STYLES), strict=False):
        points = [student_interval(values_S) for values_S in run.accuracies_SN.T]
        mean, low, high = (100 * np.array([getattr(p, name) for p in points]) for name in ("mean", "low", "high"))
        axes.plot(comparison.evaluated_N, mean, dash, color=colour, label=run.label, marker="o", markersize=2.5)
        if len(comparison.seeds) > 1:
            axes.fill_between(comparison.evaluated_N, low, high, color=colour, alpha=0.08, linewidth=0)
    axes.set(xlabel="GRPO steps", ylabel="held-out accuracy, greedy (%)")
    axes.set_title(f"{comparison.study}: mean of {_seeds(comparison)}, 95 % interval")


def _draw_differences(axes: Axes, comparison: StudyComparison) -> None:
    """Every seed as a dot, the mean with its interval beside them."""
    base = next(run for run in comparison.runs if run.label == comparison.baseline)
    shown = [
        (run, style)
        for run, style in zip(comparison.runs, itertools.cycle(_STYLES), strict=False)
        if run.final_difference is not None
    ]
    axes.axvline(0, color=GREY, linewidth=0.6)
    for place, (run, (colour, _)) in enumerate(shown):
        _draw_difference(axes, place, run, base, colour)
    axes.set_yticks(range(len(shown)), [run.label for run, _ in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set(xlabel=f"points over {comparison.baseline}")
    axes.set_title("after the last step, by seed")


def _draw_difference(axes: Axes, place: int, run: ComparedRun, base: ComparedRun, colour: str) -> None:
    dots_S = 100 * (run.accuracies_SN[:, -1] - base.accuracies_SN[:, -1])
    axes.plot(dots_S, np.full(len(dots_S), place + 0.18), "o", color=colour, markersize=2.5, alpha=0.6)
    found = run.final_difference
    if found is not None and not math.isnan(found.low):
        axes.plot([100 * found.low, 100 * found.high], [place, place], color=colour, linewidth=1.2)
        axes.plot(100 * found.mean, place, "D", color=colour, markersize=4)


def _seeds(comparison: StudyComparison) -> str:
    count = len(comparison.seeds)
    return f"{count} seed{'s' if count > 1 else ''}"


def _percent(interval: Interval, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    mean = f"{100 * interval.mean:{plus}.1f} %"
    if math.isnan(interval.low):
        return mean
    return f"{mean} [{100 * interval.low:{plus}.1f}, {100 * interval.high:{plus}.1f}]"


def _number(p: float) -> str:
    if math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
