"""Benchmarks at the terminal: one table of accuracies, one of what became of the responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from flowtracer.evaluation.summary import BenchmarkResult
from flowtracer.report.terminal.numbers import NumberTable


def benchmark_tables(results: Sequence[BenchmarkResult]) -> Iterator[NumberTable]:
    """avg@k and pass@k, then reasons; agreement with labels where responses had them."""
    ks = sorted({int(k) for result in results for k in result.passes} - {1})
    numbers = ("problems", "samples", "avg@k", *(f"pass@{k}" for k in ks), "tokens", "ended")
    table = NumberTable("95 % intervals over problems", ("benchmark",), numbers)
    for result in results:
        passes = [result.passes.get(str(k)) for k in ks]
        table.add_row(
            result.benchmark,
            str(result.problems),
            str(result.samples),
            result.average.percent(),
            *("" if value is None else value.percent() for value in passes),
            "" if result.tokens is None else f"{result.tokens:.0f}",
            f"{result.finished:.0%}",
        )
    yield table
    what = NumberTable("", ("benchmark", "responses", "answer found by", "records skipped"), ())
    for result in results:
        what.add_row(result.benchmark, _counts(result.reasons), _counts(result.found), _counts(result.skipped))
    yield what
    labelled = [(result.benchmark, result.agreement) for result in results if result.agreement is not None]
    if labelled:
        numbers = ("labelled", "same as the label", "right here alone", "right by the label alone")
        beside = NumberTable("", ("benchmark",), numbers)
        for name, agreement in labelled:
            share = f"{agreement.same} ({agreement.same / agreement.labelled:.2%})"
            beside.add_row(name, str(agreement.labelled), share, str(agreement.only_here), str(agreement.only_label))
        yield beside


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
