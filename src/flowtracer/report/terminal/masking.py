"""The causal check at the terminal: one table of shares, one of curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from flowtracer.checks.masking import MaskingSummary, ScoreAgreement
from flowtracer.intervals import Interval
from flowtracer.report.terminal.numbers import NumberTable


def masking_tables(summary: MaskingSummary) -> Iterator[NumberTable]:
    """What hiding did, and how far log p falls and comes back."""
    right = "" if summary.right_before is None else f"; {summary.right_before:.0%} right with nothing hidden"
    title = f"{summary.rollouts} rollouts, {summary.graded} with a gold answer{right}"
    numbers = ("answers changed", "right or wrong flipped", "log p", "changed over random")
    table = NumberTable(title, ("hidden", "share"), numbers)
    for row in summary.rows:
        table.add_row(
            row.by if row.by == row.end else f"{row.by} {row.end}",
            f"{row.share:.0%}",
            _percent(row.changed),
            _percent(row.flipped),
            _number(row.log_prob_change),
            "" if row.by == row.end else _percent(row.changed_over_random),
        )
    yield table
    shares = sorted({share for curve in summary.curves for share in curve.shares})
    areas = NumberTable("mean change of log p", ("curve", "by"), ("area over shares", *(f"at {s:.0%}" for s in shares)))
    for curve in summary.curves:
        # A curve has an end of its own beside the shares of the others.
        heights = dict(zip(curve.shares, curve.heights, strict=True))
        points = (f"{heights[share]:+.2f}" if share in heights else "" for share in shares)
        areas.add_row(curve.kind, curve.by, _number(curve.area), *points)
    yield areas


def agreement_table(rows: Sequence[ScoreAgreement], first: str) -> NumberTable:
    """How scores order tokens by the effect of hiding each; `first` is what the last column is held against."""
    title = f"{rows[0].correlation.items} responses, every token hidden in turn"
    numbers = ("rank correlation", "away from the cue", "effect on its top fifth", f"over {first}")
    table = NumberTable(title, ("score",), numbers)
    for row in rows:
        table.add_row(row.name, _number(row.correlation), _number(row.away), _percent(row.top), _number(row.over))
    return table


def _percent(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return "-"
    return f"{100 * interval.mean:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _number(interval: Interval) -> str:
    return "-" if math.isnan(interval.mean) else f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
