"""The meter as a page: what strategies are worth, and responses whose tokens are coloured by what they truly contribute
beside the credit that they got.

It needs no script: radio buttons choose the strategy whose credit stands on the right. Token text is hostile and goes
through the template's escaping alone; every colour is a number made here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flowtracer.checks.meter import MeterResult
from flowtracer.checks.meter.result import Example
from flowtracer.checks.meter.worth import UNIFORM, Worth
from flowtracer.intervals import Interval
from flowtracer.report.page.html import render
from flowtracer.report.terminal.meter import percent
from flowtracer.text.printable import one_line, printable


def meter_page(result: MeterResult) -> str:
    """The page, as HTML."""
    ranked = [worth for worth in result.worths if worth.kind == "strategy" and worth.name != UNIFORM]
    names = [worth.name for worth in ranked]
    rows = [worth for worth in result.worths if worth.kind != "flattered"]
    rows += [result.mix.worth] if result.mix is not None else []
    rows.sort(key=lambda worth: -worth.plain.mean)
    span = max((abs(row.plain.mean - 1) for row in rows), default=0) * 1.3 or 1.0
    return render(
        "meter",
        title=one_line(f"What credit is worth: {result.model} on {result.task}"),
        verdict=result.truth.verdict(),
        silent=result.truth.silent,
        facts=[
            f"right {result.truth.accuracy.percent()} of {result.truth.rollouts:,} rollouts",
            f"halves of g* agree to a cosine of {result.truth.halves:.2f}",
            f"{result.minibatches} minibatches of {result.batch}",
            f"loss {result.loss_type}",
            f"parameters {one_line(result.parameters)}",
        ],
        names=[one_line(name) for name in names],
        rows=[_row(row, span) for row in rows],
        examples=[_example(example, names) for example in result.examples],
    )


def _row(worth: Worth, span: float) -> dict[str, Any]:
    return {
        "name": one_line(worth.name),
        "kind": worth.kind,
        "plain": percent(worth.plain),
        "adam": "" if worth.adam is None else percent(worth.adam),
        "rollouts": f"{worth.rollouts:.2f}",
        "sure": "more" if worth.plain.low > 1 else "less" if worth.plain.high < 1 else "same",
        **_bar(worth.plain, span),
    }


def _bar(interval: Interval, span: float) -> dict[str, str]:
    """Where interval and mean stand on an axis of `span` to both sides of plain GRPO, in percent of its width."""
    low, mean, high = (
        min(100.0, max(0.0, 50 + 50 * (value - 1) / span)) for value in (interval.low, interval.mean, interval.high)
    )
    if math.isnan(interval.mean):
        return {"left": "50", "width": "0", "dot": "50"}
    return {"left": f"{low:.2f}", "width": f"{high - low:.2f}", "dot": f"{mean:.2f}"}


def _example(example: Example, names: Sequence[str]) -> dict[str, Any]:
    texts = [printable(text) for text in example.tokens]
    return {
        "prompt": printable(example.prompt),
        "right": example.reward == 1,
        "reward": f"{example.reward:.3g}",
        "advantage": f"{example.advantage:+.2f}",
        "truth": [
            {"text": text, "share": f"{math.sqrt(abs(value)):.3f}", "sign": _sign(value), "value": value}
            for text, value in zip(texts, example.contributions, strict=True)
        ],
        "credits": [_credit(texts, example.credits[name]) for name in names],
    }


def _credit(texts: Sequence[str], factors: Sequence[float]) -> list[dict[str, Any]]:
    """Factors between the least and the largest of the response."""
    low, high = min(factors), max(factors)
    span = high - low or 1.0
    return [
        {"text": text, "share": f"{(factor - low) / span:.3f}", "value": factor}
        for text, factor in zip(texts, factors, strict=True)
    ]


def _sign(value: float) -> str:
    return "up" if value > 0 else "down"
