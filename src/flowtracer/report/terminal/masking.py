"""The causal check at the terminal: one table of shares, one of curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flowtracer.checks.masking import MaskingSummary, ScoreAgreement
from flowtracer.intervals import Interval


def masking_tables(summary: MaskingSummary) -> Iterator[Table]:
    """What hiding did, and how far log p falls and comes back."""
    right = "" if summary.right_before is None else f"; {summary.right_before:.0%} right with nothing hidden"
    title = f"{summary.rollouts} rollouts, {summary.graded} with a gold answer{right}"
    table = Table("hidden", "share", title=Text(title), title_justify="left", pad_edge=False)
    for header in ("answers changed", "right or wrong flipped", "log p", "changed over random"):
        table.add_column(header, justify="right")
    last = ""
    for row in summary.rows:
        name = row.by if row.by == row.end else f"{row.by} {row.end}"
        table.add_row(
            name if name != last else "",
            f"{row.share:.0%}",
            _percent(row.changed),
            _percent(row.flipped),
            _number(row.log_prob_change),
            "" if row.by == row.end else _percent(row.changed_over_random),
        )
        last = name
    yield table
    areas = Table("curve", "by", title=Text("mean change of log p"), title_justify="left", pad_edge=False)
    areas.add_column("area over the shares", justify="right")
    areas.add_column("at each share")
    for curve in summary.curves:
        points = zip(curve.shares, curve.heights, strict=True)
        areas.add_row(
            curve.kind, curve.by, _number(curve.area), "  ".join(f"{s:.0%} {height:+.2f}" for s, height in points)
        )
    yield areas


def agreement_table(rows: Sequence[ScoreAgreement], first: str) -> Table:
    """How scores order tokens by the effect of hiding each; `first` is what the last column is held against."""
    title = f"{rows[0].correlation.items} responses, every token hidden in turn"
    table = Table("score", title=Text(title), title_justify="left", pad_edge=False)
    for header in ("rank correlation", "away from the cue", "effect on its top fifth", f"over {first}"):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(row.name, _number(row.correlation), _number(row.away), _percent(row.top), _number(row.over))
    return table


def _percent(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return "-"
    return f"{100 * interval.mean:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _number(interval: Interval) -> str:
    return "-" if math.isnan(interval.mean) else f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
