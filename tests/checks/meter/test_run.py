"""The meter from end to end: what it keeps, goes on from, refuses and shows."""

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import flowtracer as ft
from enumerable import Toy, toy_model, toy_tokenizer
from flowtracer.checks.meter.rollouts import Group, as_batch
from flowtracer.checks.meter.strategies import Strategies
from flowtracer.cli import app
from flowtracer.credit import Signals, make_credit
from flowtracer.errors import InputError
from flowtracer.report.figures.meter import plot_worth
from flowtracer.report.page.meter import meter_page
from flowtracer.report.terminal.meter import meter_summary, meter_tables
from tiny import tiny_model, tiny_tokenizer

# torch's own, when it first differentiates forward
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

OPTIONS = ft.MeterOptions(rollouts=64, minibatches=3, batch=8, group=4, max_new_tokens=2, moment_steps=2)
HOSTILE = [
    "</style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202e",
    "\ud800",
    "{{ 7*7 }}",
    "&amp;",
]


def first(signals: Signals) -> torch.Tensor:
    """The advantage on the first token alone."""
    return signals.weighted((torch.arange(signals.mask_BR.shape[1]) == 0).float().expand(signals.mask_BR.shape))


def run(out, options=OPTIONS, **changes):
    arguments = {"credit": {"first": first}, "options": options, "out": out, **changes}
    return ft.meter(toy_model(torch.float32), toy_tokenizer(), Toy(), **arguments)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meter")
    return folder, run(folder)


def timeless(result):
    return {name: value for name, value in result.to_dict().items() if name != "seconds"}


def same(one, other):
    """Equal documents; NaN is equal to itself."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_a_run_that_was_interrupted_ends_with_the_same_result(measured, tmp_path):
    folder, result = measured
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    lines = (cut / "rollouts.jsonl").read_text().splitlines(keepends=True)
    (cut / "rollouts.jsonl").write_text("".join(lines[:9]) + lines[9][:20])
    (cut / "gradient.safetensors").unlink()
    sorted(cut.glob("minibatches/*/*"))[-1].unlink()
    done = []
    again = run(cut, on_progress=lambda stage, n, total: done.append((stage, n, total)))
    assert same(timeless(again), timeless(result))
    assert done[0] == ("rollouts", 9, 22)
    document = json.loads((cut / "meter.json").read_text())
    assert same(timeless(again), {name: value for name, value in document.items() if name != "seconds"})
    assert (cut / "rollouts.jsonl").read_text() == "".join(lines)


def test_other_strategies_use_the_same_rollouts_and_gradient(measured, tmp_path):
    folder, result = measured
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    other = run(cut, credit="entropy")
    assert (other.seconds["rollouts"], other.seconds["true gradient"]) < (1, 1)
    assert other.truth.halves == result.truth.halves
    assert {worth.name for worth in other.worths} == {"uniform", "entropy", "ceiling", "ceiling_gate"}


def test_another_policy_or_other_options_are_refused_in_the_same_folder(measured):
    folder, _ = measured
    with pytest.raises(InputError, match="seed 1 instead of 0"):
        run(folder, replace(OPTIONS, seed=1))
    changed = toy_model(torch.float32)
    with torch.no_grad():
        changed.get_input_embeddings().weight.mul_(1.1)
    with pytest.raises(InputError, match="weights"):
        ft.meter(changed, toy_tokenizer(), Toy(), "uniform", options=OPTIONS, out=folder)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 10}, "whole groups"),
        ({"group": 1}, "whole groups"),
        ({"rollouts": 8}, "two halves"),
        ({"minibatches": 1}, "2 minibatches"),
        ({"moment_steps": 0}, "moment_steps"),
        ({"loss_type": "vespo"}, "loss_type"),
        ({"answer_pattern": "b"}, "answer_pattern"),
    ],
)
def test_options_that_measure_nothing_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        replace(OPTIONS, **wrong)


def test_a_mix_of_what_is_not_measured_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a mix of uniform, first"):
        run(tmp_path, mix=["flow"])


def test_answers_of_a_task_of_ones_own_are_found_by_its_pattern(measured, tmp_path):
    """No response here states its answer in a usual way, so that without a pattern flow is silent."""
    folder, _ = measured
    assert "answer_pattern" not in (folder / "options.json").read_text(), "as folders of before there was one"
    problem, tokenizer = Toy().problems("train", 1)[0], tiny_tokenizer()
    prompt_ids, *responses = (tokenizer(text)["input_ids"] for text in ("3 + 4?", "3 + 4. Result: 7", "so 8"))
    group = Group(problem=problem, prompt_ids=prompt_ids, response_ids=responses, rewards=[1.0, 0.0])
    batch = as_batch([group], torch.device("cpu"))
    for pattern, spoken_B in ((None, [False, False]), (r"Result: (\d)", [True, False])):
        placing = Strategies(tiny_model(), tokenizer, {"flow": make_credit("flow")}, answer_pattern=pattern)
        assert placing.place(batch)["flow"].scores_BR.isfinite().any(1).tolist() == spoken_B


def spoken(result):
    """The result as if the instrument had found its direction."""
    uniform = replace(result.truth.uniform, low=0.1, mean=0.2, high=0.3)
    return replace(result, truth=replace(result.truth, uniform=uniform))


def test_a_silent_instrument_says_so_and_shows_no_table(measured):
    _, result = measured
    uniform = replace(result.truth.uniform, low=-0.1)
    silent = replace(result, truth=replace(result.truth, uniform=uniform))
    assert "too noisy to say anything" in " ".join(text.plain for text in meter_summary(silent))
    assert list(meter_tables(silent)) == []
    assert "Worth over plain GRPO" not in meter_page(silent)
    assert next(meter_tables(spoken(result))).title.startswith("worth")


def test_hostile_text_stays_text(measured):
    _, result = measured
    example = result.examples[0]
    n = len(HOSTILE)
    hostile = replace(
        example,
        prompt=HOSTILE[0],
        tokens=HOSTILE,
        contributions=list(np.linspace(-1, 1, n)),
        credits={name: list(np.linspace(0, 1.5, n)) for name in example.credits},
    )
    page = meter_page(replace(spoken(result), model=HOSTILE[0], examples=[hostile]))
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;/style&gt;&lt;script&gt;" in page
    assert "{{ 7*7 }}" in page
    assert "&amp;amp;" in page
    assert page.encode("utf-8")


def test_the_page_is_one_file_that_asks_for_nothing(measured):
    page = meter_page(spoken(measured[1]))
    assert "default-src 'none'" in page
    for forbidden in ("http://", "https://", "src=", "url(", "@import", "<script"):
        assert forbidden not in page, forbidden
    for example in measured[1].examples:
        for token in example.tokens:
            assert token.strip().replace("<", "&lt;").replace(">", "&gt;") in page


def test_the_figure_has_both_metrics_and_a_row_a_strategy(measured):
    figure = plot_worth(spoken(measured[1]))
    plain, adam = figure.axes
    labels = [label.get_text() for label in plain.get_yticklabels()]
    assert set(labels) == {"first", "ceiling", "ceiling_gate", "best mix"}
    assert (plain.get_title(loc="left"), adam.get_title(loc="left")) == (
        "worth over plain GRPO, 3 minibatches",
        "in Adam's metric",
    )


def test_the_command_writes_json_page_and_figure(tmp_path):
    arguments = ["meter", "--task", "countdown:brief=true,min_numbers=3,max_numbers=3,max_value=20", "--out"]
    small = ["--rollouts", "32", "--minibatches", "2", "--batch", "8", "--group", "4", "--max-new-tokens", "24"]
    done = CliRunner().invoke(
        app, [*arguments, str(tmp_path), *small, "--credit", "flow,position"], env={"COLUMNS": "80"}
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "meter.json").read_text())
    assert found["model"] == "nano"
    assert {worth["name"] for worth in found["worths"]} == {"uniform", "flow", "position", "ceiling", "ceiling_gate"}
    assert found["verdict"] in " ".join(done.output.split())
    assert {file.name for file in tmp_path.glob("meter.*")} == {"meter.json", "meter.html", "meter.svg", "meter.png"}
    assert max(len(line) for line in done.output.splitlines() if str(tmp_path) not in line) <= 80
    piped = CliRunner().invoke(app, [*arguments, str(tmp_path), *small, "--credit", "flow,position", "--json"])
    assert [worth["name"] for worth in json.loads(piped.stdout)["worths"]] == [w["name"] for w in found["worths"]]


def test_mistakes_of_a_user_are_named(tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else there(name, *rest))
    for options, message in (
        (["--credit", "flaw"], "expected a credit among"),
        (["--parameters", "lora"], "pip install peft"),
        (["--task", "sudoku"], "expected a task among"),
    ):
        failed = CliRunner().invoke(app, ["meter", "--task", "planted", "--out", str(tmp_path / "new"), *options])
        assert message in str(failed.exception)
        assert not (tmp_path / "new").exists()
