"""`flowtracer mask` as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.cli.options import parse_shares
from flowtracer.errors import InputError


@pytest.fixture
def rollouts(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    lines = [
        {"prompt": "what?", "response": f"First 3 + {n} = {3 + n} apples.\nA: {3 + n}", "id": f"r{n}", "gold": "7"}
        for n in range(4, 7)
    ]
    bad = [{"prompt": "what?", "response": "no idea", "id": "miss"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines + bad))
    return str(file)


def test_a_file_is_checked_and_a_second_run_holds_all(model, rollouts, tmp_path):
    out = tmp_path / "out"
    arguments = ["mask", rollouts, "--model", model, "--out", str(out), "--by", "flow,attention", "--shares", "0.2,0.4"]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for expected in ("3 rollouts, 3 with a gold answer", "flow top", "attention bottom", "random", "insertion"):
        assert expected in done.output
    assert "skipped miss: no_answer" in done.output
    lines = (out / "outcomes.jsonl").read_text()
    assert len(lines.splitlines()) == 3
    summary = json.loads((out / "summary.json").read_text())
    assert {row["by"] for row in summary["rows"]} == {"flow", "attention", "random"}
    again = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert again.exit_code == 0
    assert (out / "outcomes.jsonl").read_text() == lines, "nothing is checked twice"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "uniform"], "no scores"),
        (["--shares", "a,b"], "expected shares such as"),
        (["--way", "blur"], "way of hiding"),
    ],
)
def test_mistakes_are_named(model, rollouts, tmp_path, options, message):
    arguments = ["mask", rollouts, "--model", model, "--out", str(tmp_path / "out"), *options]
    failed = CliRunner().invoke(app, arguments)
    assert isinstance(failed.exception, InputError)
    assert message in str(failed.exception)


def test_shares_are_sorted():
    assert parse_shares("0.4, 0.05") == [0.05, 0.4]


def test_strategies_are_named_with_their_options(model, rollouts, tmp_path):
    out, names = tmp_path / "out", ["flow:capacity=value,graph=layered", "shuffled:seed=3"]
    arguments = ["mask", rollouts, "--model", model, "--out", str(out), "--by", ",".join(names), "--shares", "0.4"]
    done = CliRunner().invoke(app, [*arguments, "--limit", "1"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    summary = json.loads((out / "summary.json").read_text())
    assert {row["by"] for row in summary["rows"]} == {*names, "random"}
