"""What explain and compare print, and that nothing of a model's text steers a terminal."""

import io
import json

import pytest
from rich.console import Console

import flowtracer as ft
from flowtracer.report.explain import explain, explanation
from flowtracer.report.terminal.comparison import render_comparison
from flowtracer.report.terminal.group import render_group
from synthetic import RIGHT, WRONG, synthetic_trace

HOSTILE = ("\x1b[2J", "\r", "\u202e", "\ud800", "[bold]", "{x}", "$", "é" * 300, "\n", "A", ":", " ", "\x1b[31m7")


def printed(renderable, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_explain_says_what_carried_the_answer():
    trace = synthetic_trace(RIGHT, metadata={"id": "r", "is_correct": True})
    text = explain(trace, hubs=3, paths=2)
    assert text.startswith(f"r: {trace.summary()}")
    assert "answer 7, right" in text
    for heading in ("Hubs", "Strongest paths through steps", "Strongest paths through words", "Steps", "Layers"):
        assert f"\n\n{heading}\n" in text
    for hub in trace.hubs(3):
        assert f"{hub.flow:.1%}" in text
        assert hub.label in text
    for best in (trace.paths(1)[0], trace.paths(1, level="words")[0]):
        assert f"{best.share:.1%}  {best.way}" in text
    assert text.endswith("Layers\n  1: 50%  2: 50%\n")


def test_explanation_is_json():
    trace = synthetic_trace(RIGHT)
    content = json.loads(json.dumps(explanation(trace, hubs=4, paths=3)))
    assert [hub["token"] for hub in content["hubs"]] == [hub.token for hub in trace.hubs(4)]
    assert [path["share"] for path in content["paths"]] == [path.share for path in trace.paths(3)]
    assert [step["text"] for step in content["steps"]] == [step.text for step in trace.steps()]
    assert content["layer_flow"] == trace.layer_flow.tolist()
    assert (content["answer"], content["verdict"]) == ("7", None)


def test_a_trace_without_hubs_or_heads():
    trace = synthetic_trace(("7",), head_flow=synthetic_trace().head_flow[:, :0])
    text = explain(trace)
    assert "straight from the prompt" in text
    assert "Layers" not in text


def test_explain_says_what_a_trace_was_made_by_where_that_is_not_the_default():
    assert "; synthetic; answer 7" in explain(synthetic_trace(RIGHT))
    made = explain(synthetic_trace(RIGHT, capacity="alti\x1b"))
    assert "; synthetic, weighed by alti·; answer 7" in made


def test_a_group_fits_a_narrow_terminal():
    verdicts = [(RIGHT, True), (RIGHT, True), (WRONG, False), (WRONG, False)]
    traces = [synthetic_trace(steps, metadata={"is_correct": correct}) for steps, correct in verdicts]
    group = ft.compare_group(traces)
    text = printed(render_group(group), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "2 right  1. 3 + 4 = 7." in text
    assert "2 wrong  1. 3 * 4 = 12." in text
    assert text.count("too few") > 1
    untold = printed(render_group(ft.compare_group([synthetic_trace(RIGHT), synthetic_trace(WRONG)])), width=80)
    assert "2 responses  begin" in untold
    assert "right" not in untold.split("Where they part")[1]
    many = ft.compare_group([synthetic_trace((*RIGHT[:3], " =", f" {n}", "\n", "A", ":", f" {n}")) for n in range(9)])
    assert "3 responses  on 3 more ways" in printed(render_group(many), width=80)


def test_comparison_shows_both():
    right = synthetic_trace(RIGHT, metadata={"id": "r", "is_correct": True})
    wrong = synthetic_trace(WRONG, metadata={"id": "w", "is_correct": False})
    comparison = ft.compare(right, wrong)
    text = printed(render_comparison(comparison))
    assert comparison.summary() in " ".join(text.split())
    for word in ("right", "wrong", "kept", "3 + 4 = 7.", "3 * 4 = 12."):
        assert word in text
    group = ft.compare_group([right, wrong, right])
    text = printed(render_group(group))
    assert group.summary() in " ".join(text.split())
    assert "responses" in text


@pytest.mark.parametrize("other", [RIGHT, HOSTILE])
def test_hostile_text_never_reaches_the_terminal(other):
    hostile = synthetic_trace(HOSTILE, metadata={"id": "\x1b]0;x\x07"}, model="\x1b[7m")
    comparison = ft.compare(hostile, synthetic_trace(other))
    texts = [
        explain(hostile),
        printed(render_comparison(comparison)),
        printed(render_group(ft.compare_group([hostile, synthetic_trace(other)]))),
        json.dumps(explanation(hostile)),
        json.dumps(comparison.to_dict()),
    ]
    for text in texts:
        assert not set(text) & set("\x1b\r\x07\u202e\ud800")
    assert "[bold]" in texts[0]
    assert other is HOSTILE or "[bold]" in texts[1], "marks of rich are text"
