"""A comparison as tables: in Markdown to keep, and at the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.intervals import Interval
from flowtracer.report.terminal.numbers import NumberTable
from flowtracer.study.differences import ComparedRun, StudyComparison
from flowtracer.study.statistics import difference, student_interval

_PLACES = 5
"""Steps at which a curve is shown in figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table of strings; the first column is names."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown(comparison: StudyComparison) -> str:
    """The comparison in Markdown."""
    first, *others = _sheets(comparison)
    lines = [f"# {comparison.study}", "", _about(comparison), "", *_markdown(first)]
    for sheet in others:
        lines += ["", f"{sheet.title}:", "", *_markdown(sheet)]
    if comparison.notes:
        lines += ["", *(f"- {note}" for note in comparison.notes)]
    if comparison.machines:
        when = " to ".join(dict.fromkeys((comparison.dates[0], comparison.dates[-1])))
        lines += ["", f"Measured on {'; '.join(comparison.machines)}; {when}."]
    return "\n".join(lines) + "\n"


def terminal_tables(comparison: StudyComparison) -> Iterator[str | NumberTable]:
    """The comparison for `rich.print`; notes are left to whoever prints."""
    yield _about(comparison)
    for sheet in _sheets(comparison):
        table = NumberTable(sheet.title, sheet.header[:1], sheet.header[1:])
        for row in sheet.rows:
            table.add_row(*row)
        yield table


def measured(comparison: StudyComparison) -> str:
    """What is compared, in a word or as the log calls it."""
    return "accuracy" if comparison.metric is None else comparison.metric


def _about(comparison: StudyComparison) -> str:
    if comparison.metric is not None:
        evaluated, count = comparison.evaluated_N, len(comparison.evaluated_N)
        what = f"{comparison.metric} at {count} step{'s' if count > 1 else ''}, {evaluated[0]:g} to {evaluated[-1]:g}"
        how = "paired by seed" if comparison.paired else "not paired (Welch)"
        return (
            f"{what}, {seeds_of(comparison)}. Mean and 95 % interval over seeds (Student); differences are {how}, p is "
            "Holm's, of the last step."
        )
    starts = sorted({round(float(run.values_SN[:, 0].mean()), 4) for run in comparison.runs})
    return (
        f"Greedy accuracy on {comparison.problems} held-out problems after {comparison.steps} steps "
        f"({comparison.epochs:.3g} passes over the training problems), {seeds_of(comparison)}; "
        f"before training {' and '.join(f'{100 * start:.1f} %' for start in starts)}. "
        "Mean and 95 % interval over seeds (Student); differences are paired by seed, p is Holm's."
    )


def seeds_of(comparison: StudyComparison) -> str:
    """How many seeds, or runs where these have none in common."""
    if not comparison.paired:
        return f"{' and '.join(str(len(run.values_SN)) for run in comparison.runs)} runs"
    count = len(comparison.seeds)
    return f"{count} seed{'s' if count > 1 else ''}"


def _sheets(comparison: StudyComparison) -> Iterator[Sheet]:
    columns = [(header, cell) for header, cell in _columns(comparison) if any(map(cell, comparison.runs))]
    yield Sheet(
        title=comparison.study,
        header=[header for header, _ in columns],
        rows=[[cell(run) for _, cell in columns] for run in comparison.runs],
    )
    if comparison.metric is not None:
        yield _along(comparison)


def _columns(comparison: StudyComparison) -> Iterator[tuple[str, Callable[[ComparedRun], str]]]:
    """Header and cell of each column; one that says nothing of any run is left out."""
    minus = f"minus {comparison.baseline}"
    own = comparison.metric is None
    yield "run", lambda run: run.label
    yield (
        "accuracy" if own else f"{comparison.metric} at step {comparison.steps}",
        lambda run: _value(comparison, run.final),
    )
    yield minus, lambda run: _value(comparison, run.final_difference, sign=True)
    yield "p", lambda run: _p(run.p_corrected)
    if not own:
        yield "curve's mean", lambda run: _value(comparison, run.average)
    yield f"curve's mean, {minus}", lambda run: _value(comparison, run.average_difference, sign=True)
    yield "tokens a response", lambda run: _number(run.response_tokens, ".0f")
    yield "seconds a step", lambda run: _number(run.step_seconds, ".2f")
    yield "in credit", lambda run: _number(run.credit_seconds / run.step_seconds, ".1%")


def _along(comparison: StudyComparison) -> Sheet:
    """Values and differences at a few steps from the first to the last."""
    places = np.unique(np.linspace(0, len(comparison.evaluated_N) - 1, _PLACES).round().astype(int))
    rows = [
        [run.label, *(_value(comparison, student_interval(run.values_SN[:, n])) for n in places)]
        for run in comparison.runs
    ]
    base_SN = comparison.base.values_SN
    for run in (run for run in comparison.runs if run.final_difference is not None):
        apart = [difference(run.values_SN[:, n], base_SN[:, n], paired=comparison.paired).interval for n in places]
        rows.append([f"{run.label} minus {comparison.baseline}", *(_value(comparison, a, sign=True) for a in apart)])
    header = ["run", *(f"step {comparison.evaluated_N[n]:g}" for n in places)]
    return Sheet(title=f"{comparison.metric} along the curve", header=header, rows=rows)


def _markdown(sheet: Sheet) -> list[str]:
    header = f"| {' | '.join(sheet.header)} |"
    return [header, f"|{'---|' * len(sheet.header)}", *(f"| {' | '.join(row)} |" for row in sheet.rows)]


def _value(comparison: StudyComparison, interval: Interval | None, *, sign: bool = False) -> str:
    """Accuracy in percent; anything else with as many decimals as the largest value needs for three digits."""
    if interval is None:
        return ""
    scale, decimals, unit = 100, 1, " %"
    if comparison.metric is not None:
        largest = max(float(abs(run.values_SN).max()) for run in comparison.runs)
        scale, decimals, unit = 1, 2 - math.floor(math.log10(largest)) if largest else 0, ""
    written = f"{'+' if sign else ''}.{max(0, decimals)}f"
    mean, low, high = (f"{scale * bound:{written}}" for bound in (interval.mean, interval.low, interval.high))
    return f"{mean}{unit}" if math.isnan(interval.low) else f"{mean}{unit} [{low}, {high}]"


def _number(value: float, digits: str) -> str:
    return "" if math.isnan(value) else f"{value:{digits}}"


def _p(p: float | None) -> str:
    if p is None or math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
