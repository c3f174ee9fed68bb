"""`flowtracer faithfulness` as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import InputError
from flowtracer.model import load


def test_a_table_and_a_file(tmp_path):
    out = tmp_path / "new" / "truth.json"
    arguments = ["faithfulness", "--task", "planted:chains=2,length=3", "--problems", "5", "--bands"]
    done = CliRunner().invoke(
        app, [*arguments, "--strategies", "flow,uniform", "--out", str(out)], env={"COLUMNS": "150"}
    )
    assert done.exit_code == 0, done.output
    for expected in (
        "5 of 5 worked responses",
        "AUROC of credit",
        "uniform",
        "0.50 [0.50, 0.50]",
        "flow to prediction",
    ):
        assert expected in done.output
    document = json.loads(out.read_text())
    assert (document["model"], document["problems"], document["right"]) == ("nano", 5, 5)
    first = document["rows"][0]
    assert (first["name"], first["by"], first["band"]) == ("flow", "score", "")
    assert set(first) == {"name", "by", "band", "steps", "step_means", "tokens"}
    assert first["tokens"]["items"] == 5


@pytest.mark.parametrize(("place", "message"), [(".", "which is a folder"), ("file/x", "a file that can be written")])
def test_a_place_for_results_that_takes_none_is_named_before_any_is_computed(tmp_path, monkeypatch, place, message):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(load, "load_model", None)
    failed = CliRunner().invoke(app, ["faithfulness", "--problems", "2", "--out", str(tmp_path / place)])
    assert isinstance(failed.exception, InputError)
    assert message in str(failed.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "sudoku"], "expected a task among countdown, forks, gsm_symbolic, planted, got 'sudoku'"),
        (["--task", "gsm_symbolic"], "expected a task that writes responses"),
        (["--task", "planted:chains"], "expected options of planted such as"),
        (["--task", "planted:size=3"], "expected options of task 'planted'"),
        (["--strategies", "flaw"], "expected a credit among"),
    ],
)
def test_mistakes_are_named(options, message):
    failed = CliRunner().invoke(app, ["faithfulness", "--problems", "2", *options])
    assert isinstance(failed.exception, InputError)
    assert message in str(failed.exception)
