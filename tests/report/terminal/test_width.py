"""Every table at 80 columns: no line is longer, and no number is cut off."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from flowtracer.checks.masking.summary import ChoiceSummary, LogProbCurve, MaskingSummary
from flowtracer.checks.meter.result import MeterResult, TrueGradient
from flowtracer.checks.meter.truth import TokenTruth
from flowtracer.checks.meter.worth import Mix, Worth
from flowtracer.checks.planted import Faithfulness, Separation
from flowtracer.checks.planted.judge import Key
from flowtracer.cli.console import pairs
from flowtracer.cli.trace import summary_table
from flowtracer.cli.train import training_line
from flowtracer.evaluation.summary import Agreement, BenchmarkResult
from flowtracer.intervals import Interval
from flowtracer.report.explain import explain
from flowtracer.report.terminal.comparison import render_comparison
from flowtracer.report.terminal.evaluation import benchmark_tables
from flowtracer.report.terminal.group import render_group
from flowtracer.report.terminal.masking import masking_tables
from flowtracer.report.terminal.meter import meter_tables
from flowtracer.report.terminal.numbers import NumberTable
from flowtracer.report.terminal.planted import faithfulness_tables
from flowtracer.report.terminal.trace import render
from flowtracer.study.differences import compare_runs
from flowtracer.study.tables import terminal_tables
from flowtracer.trace.compare import compare
from flowtracer.trace.group import compare_group
from flowtracer.tracing.summary import Summary
from study_files import document_of
from synthetic import RIGHT, WRONG, synthetic_trace

WIDTH = 80
LONG = "flow:capacity=alti,graph=layered,gamma=1000000"
WIDE = Interval(mean=0.9876, low=-0.5432, high=1.2345, items=1000)


def shown(*renderables, width=WIDTH):
    console = Console(width=width, file=io.StringIO())
    for renderable in renderables:
        console.print(renderable)
    return console.file.getvalue()


def evaluation():
    counts = {"correct": 12345, "wrong_value": 678, "no_answer": 90, "cut_off": 12, "timeout": 3}
    yield from benchmark_tables(
        [
            BenchmarkResult(
                benchmark="countdown:brief=true,min_numbers=3,max_numbers=3,max_value=20",
                problems=1319,
                samples=64,
                average=WIDE,
                passes={str(2**k): WIDE for k in range(7)},
                finished=0.987,
                tokens=12345.0,
                reasons=counts,
                found={"boxed": 12345, "last_number": 678},
                skipped={"no_gold": 12, "duplicate": 3456},
                agreement=Agreement(labelled=12345, same=12300, only_here=40, only_label=5),
            )
        ]
    )


def masking():
    shares = (0.05, 0.1, 0.2, 0.4)
    rows = [
        ChoiceSummary(
            by=LONG,
            end=end,
            share=share,
            changed=WIDE,
            flipped=WIDE,
            log_prob_change=WIDE,
            changed_over_random=WIDE,
        )
        for end in ("top", "bottom")
        for share in shares
    ]
    ends = {"deletion": (0.0, *shares), "insertion": (*shares, 1.0)}
    curves = [
        LogProbCurve(by=LONG, kind=kind, shares=points, heights=[-12.34] * 5, area=WIDE)
        for kind, points in ends.items()
    ]
    summary = MaskingSummary(rollouts=1319, graded=1300, right_before=0.5, rows=rows, top_over_bottom={}, curves=curves)
    yield from masking_tables(summary)


def meter():
    worth = Worth(name=LONG, kind="strategy", plain=WIDE, adam=WIDE)
    told = TokenTruth(name=LONG, auroc=WIDE, correlation=WIDE, curve=(WIDE,) * 10)
    heard = Interval(mean=0.2, low=0.1, high=0.3, items=24)
    truth = TrueGradient(rollouts=64, accuracy=WIDE, informative=0.5, halves=0.5, length=1.0, uniform=heard)
    how = {"model": "m", "task": "t", "minibatches": 24, "batch": 64, "loss_type": "dapo", "parameters": "all"}
    mix = Mix(coefficients={LONG: 0.5}, worth=worth)
    found = {"worths": [worth], "mix": mix, "tokens": [told], "examples": [], "seconds": {}}
    yield from meter_tables(MeterResult(truth=truth, **how, **found))


def faithfulness():
    keys = [Key(by="score", name=LONG, band=""), Key(by="credit", name="flow", band="")]
    keys += [Key(by="signal", name="received by later", band=f"{n}-{n + 9}") for n in range(0, 60, 10)]
    keys.append(Key(by="signal", name="position", band=""))
    rows = [Separation(key=key, steps=WIDE, step_means=WIDE, tokens=WIDE) for key in keys]
    yield from faithfulness_tables(Faithfulness(problems=300, worked=300, right=290, rows=rows))


def study():
    yield from terminal_tables(compare_runs(document_of({"uniform": [[0.5, 0.6]] * 3, LONG: [[0.5, 0.61]] * 3})))
    costs = {"step_seconds": [[1, 123.456]], "credit_seconds": [[1, 12.3]], "response_tokens": [[1, 12345.0]]}
    seeds = {str(n): {"steps": 40, "values": [[s, 0.1 * s + n] for s in range(41)], **costs} for n in range(3)}
    runs = {label: {"seeds": seeds} for label in ("a", LONG)}
    document = {"study": "s", "baseline": "a", "metric": "completions/mean_length", "runs": runs}
    yield from terminal_tables(compare_runs(document))


def summary():
    counts = {"through hubs of traces": 0.5}
    yield summary_table(
        Summary(
            rollouts=123456, traced=123000, skipped={"answer_not_in_text": 456}, tokens=123456789,
            largest_conservation_error=1e-9, hub_words=[(f"word {n}", 1000) for n in range(20)],
            share_through_hubs=counts, backbone_edges_per_token=12.3,
        ),
        123.4,
        {"made": 1000, "damaged": 12},
    )  # fmt: skip


def train():
    shares = dict.fromkeys(("credit/traced", "credit/boosted_share", "credit/flow_in_boosted"), 1.0)
    yield training_line({"step": 9999, "reward": -0.12345, **shares, "step_time": 123.4, "credit/seconds": 1.2})


def doctor():
    yield pairs("machine", {"longest, matrix recomputed": f"about {10**7:,} tokens in 123.4 GiB " * 4})


def trace():
    words = tuple(f" {'word' * 6}{n}" for n in range(30))
    one = synthetic_trace((*words, *RIGHT), metadata={"id": "planted/test/1986658b376f3248", "is_correct": True})
    yield render(one, hubs=20, paths=10)


def comparison():
    right, wrong = (synthetic_trace(words, metadata={"id": "x" * 16}) for words in (RIGHT, WRONG))
    yield render_comparison(compare(right, wrong))
    yield render_group(compare_group([right, wrong, right]))


TABLES = (evaluation, masking, meter, faithfulness, study, summary, train, doctor, trace, comparison)


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: tables.__name__)
def test_no_line_is_longer_and_no_cell_is_cut_off(tables):
    narrow, wide = shown(*tables()), shown(*tables(), width=2000)
    assert max(map(cell_len, narrow.splitlines())) <= WIDTH
    assert narrow.count("…") == wide.count("…"), "long words are cut at any width, cells at none"
    numbers = [sorted(re.findall(r"(?<![\w.])[+-]?\d[\d,.]*(?![\w.])", text)) for text in (narrow, wide)]
    names = re.findall(r"\d+", LONG)
    assert {n for n in numbers[1] if n not in names} <= set(numbers[0]), "a number was broken"


def test_explain_is_text_that_a_terminal_may_fold():
    assert "…" not in explain(synthetic_trace(RIGHT)).split("Steps")[0]


intervals = st.builds("{:.2f} % [{:.1f}, {:+.1f}]".format, *[st.floats(-1e4, 1e4)] * 3)
cells = st.one_of(intervals, st.integers(-(10**9), 10**9).map(str), st.just(""))


@given(st.integers(60, 200), st.integers(1, 12), st.data())
def test_tables_of_numbers_keep_every_number_at_any_width(width, columns, data):
    headers = data.draw(st.lists(st.text("abc xyz", min_size=1, max_size=20), min_size=columns, max_size=columns))
    table = NumberTable("t", ("name", "of"), headers)
    rows = [[data.draw(cells) for _ in range(columns)] for _ in range(3)]
    for number, row in enumerate(rows):
        table.add_row(f"row {number}", "name=" * 12, *row)
    text = shown(table, width=width)
    assert max(map(cell_len, text.splitlines())) <= width
    for row in rows:
        for cell in filter(None, row):
            parts = cell.split(" [")
            assert parts[0] in text
            assert all(f"[{part}" in text for part in parts[1:])


def test_a_row_has_a_cell_a_column():
    with pytest.raises(ValueError, match="expected 2 cells"):
        NumberTable("t", ("name",), ("number",)).add_row("one")


def test_what_fits_stands_beside_its_interval():
    table = NumberTable("t", ("name",), ("number",))
    table.add_row("one", "1.0 [0.5, 1.5]")
    assert "1.0 [0.5, 1.5]" in shown(table, width=40)
