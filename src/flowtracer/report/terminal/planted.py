"""AUROC against planted truth at the terminal: strategies by score, by credit, and signals by band of layers."""

from __future__ import annotations

from collections.abc import Iterator

from flowtracer.checks.planted import Faithfulness, Separation
from flowtracer.intervals import Interval
from flowtracer.report.terminal.numbers import NumberTable


def faithfulness_tables(result: Faithfulness) -> Iterator[NumberTable]:
    """One table for what strategies rank by, one for the credit that they give, one for signals if there are any."""
    over = f"{result.right} of {result.worked} worked responses concluded rightly"
    scores = [row for row in result.rows if row.key.by == "score"]
    credits = [row for row in result.rows if row.key.by == "credit"]
    if scores:
        yield _by_strategy(f"AUROC of scores, needed against distractors; {over}", scores)
    if credits:
        yield _by_strategy("AUROC of credit, the advantage that enters the loss", credits)
    signals = [row for row in result.rows if row.key.by == "signal"]
    if signals:
        yield _by_band("AUROC of signals by band of layers, by step", signals)


def _by_strategy(title: str, rows: list[Separation]) -> NumberTable:
    table = NumberTable(title, ("strategy",), ("steps", "steps by mean", "tokens", "problems"))
    for row in rows:
        shares = [_share(interval) for interval in (row.steps, row.step_means, row.tokens)]
        table.add_row(row.key.name, *shares, str(row.steps.items))
    return table


def _by_band(title: str, rows: list[Separation]) -> NumberTable:
    """Signals down, bands across; what no band has stands under the first column."""
    bands = list(dict.fromkeys(row.key.band for row in rows if row.key.band))
    table = NumberTable(title, ("signal",), bands)
    found = {(row.key.name, row.key.band): _share(row.steps) for row in rows}
    for name in dict.fromkeys(row.key.name for row in rows):
        control = found.get((name, ""))
        cells = [found.get((name, band), "") for band in bands]
        table.add_row(*([name, *cells] if control is None else [f"{name} (control)", control, *cells[1:]]))
    return table


def _share(interval: Interval) -> str:
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
