"""What credit strategies are worth, at the terminal: how good the instrument is, worth, and per-token truth."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from flowtracer.checks.meter import MeterResult
from flowtracer.checks.meter.truth import TokenTruth
from flowtracer.intervals import Interval
from flowtracer.report.terminal.numbers import NumberTable

SPARKS = "▁▂▃▄▅▆▇█"


def meter_summary(result: MeterResult) -> Iterator[Text]:
    """What was measured, and whether it can say anything."""
    truth = result.truth
    yield Text(
        f"{result.model} on {result.task}: right {truth.accuracy.percent()} of {truth.rollouts:,} rollouts, "
        f"{truth.informative:.0%} of groups informative"
    )
    yield Text(
        f"halves of g* agree to a cosine of {truth.halves:.2f}; plain GRPO's minibatches of {result.batch} point along "
        f"it by {truth.uniform.mean:.3f} [{truth.uniform.low:.3f}, {truth.uniform.high:.3f}]"
    )
    yield Text(truth.verdict(), style="red" if truth.silent else "")


def meter_tables(result: MeterResult) -> Iterator[NumberTable]:
    """Worth over plain GRPO, then what scores know of single tokens; neither where the instrument is silent."""
    if result.truth.silent:
        return
    yield _worths(result)
    yield _tokens(result)
    if result.mix is not None:
        yield _mix(result)


def _worths(result: MeterResult) -> NumberTable:
    title = f"worth over uniform, {result.minibatches} minibatches of {result.batch}, 95 % intervals"
    table = NumberTable(title, ("strategy",), ("plain", "Adam", "rollouts"))
    rows = [worth for worth in result.worths if worth.kind != "flattered"]
    rows += [result.mix.worth] if result.mix is not None else []
    for worth in sorted(rows, key=lambda worth: -worth.plain.mean):
        name = worth.name if worth.kind == "strategy" else f"({worth.name})"
        adam = "" if worth.adam is None else percent(worth.adam)
        table.add_row(name, percent(worth.plain), adam, f"x {worth.rollouts:.2f}")
    return table


def _tokens(result: MeterResult) -> NumberTable:
    title = "scores against what tokens contribute, and the best factor by tenth of score"
    table = NumberTable(title, ("strategy",), ("AUROC", "rank corr.", "low to high"))
    for row in sorted(result.tokens, key=lambda row: -row.auroc.mean):
        if not math.isnan(row.correlation.mean):
            table.add_row(row.name, number(row.auroc), number(row.correlation, "+"), sparks(row))
    return table


def _mix(result: MeterResult) -> NumberTable:
    table = NumberTable("the best mix of their advantages", ("strategy",), ("share",))
    coefficients = result.mix.coefficients if result.mix is not None else {}
    for name, share in sorted(coefficients.items(), key=lambda item: -abs(item[1])):
        if abs(share) >= 0.02:
            table.add_row(name, f"{share:+.2f}")
    return table


def percent(interval: Interval) -> str:
    """Worth as what it adds to plain GRPO's."""
    if math.isnan(interval.mean):
        return "-"
    return f"{_gain(interval.mean)} % [{_gain(interval.low)}, {_gain(interval.high)}]"


def number(interval: Interval, sign: str = "") -> str:
    """A number with its interval."""
    return f"{interval.mean:{sign}.2f} [{interval.low:{sign}.2f}, {interval.high:{sign}.2f}]"


def sparks(row: TokenTruth) -> str:
    """The credit curve as ten bars: the lowest stand for 0 or less, a dot for a tenth without tokens."""
    values = [point.mean for point in row.curve]
    top = max((value for value in values if not math.isnan(value)), default=0)
    return "".join(
        "·" if math.isnan(value) else SPARKS[max(0, round((len(SPARKS) - 1) * value / top))] if top > 0 else SPARKS[0]
        for value in values
    )


def _gain(worth: float) -> str:
    return f"{100 * (worth - 1):+.1f}"
