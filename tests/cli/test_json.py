"""`--json` of every command that prints results: the standard output is JSON and nothing else."""

import json

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.cli.console import console, print_json
from flowtracer.study.results import save_results
from run_files import small_run
from study_files import document_of
from synthetic import RIGHT, WRONG, synthetic_trace

FILES = {"page", "plot"}
"""Commands whose results are files."""

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")


@pytest.fixture
def made(model, tmp_path):
    """What commands are given, by the words that stand for it."""
    for name, response in (("a", RIGHT), ("b", WRONG)):
        synthetic_trace(response, metadata={"id": name}).save(tmp_path / f"{name}.safetensors")
    lines = [{"prompt": "3 + 4?", "response": "3 + 4 = 7.\nA: 7", "gold": "7"}, {"prompt": "q", "response": "none"}]
    (tmp_path / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run.toml").write_text(small_run(model, tmp_path / "run", credit="uniform"))
    save_results(tmp_path / "small.json", document_of({"uniform": [[0.5, 0.6]], "flow": [[0.5, 0.7]]}))
    return {"HERE": str(tmp_path), "MODEL": model, "OUT": str(tmp_path / "out")}


COMMANDS = {
    "explain": "explain HERE/a.safetensors",
    "compare": "compare HERE/a.safetensors HERE/b.safetensors",
    "trace": "trace HERE/rollouts.jsonl --model MODEL --out OUT",
    "mask": "mask HERE/rollouts.jsonl --model MODEL --out OUT --shares 0.5 --limit 1",
    "eval": "eval --responses HERE/rollouts.jsonl --out OUT --workers 1",
    "study": "study --report small --results HERE",
    "train": "train HERE/run.toml",
    "faithfulness": "faithfulness --problems 2 --strategies position --out OUT/found.json",
    "doctor": "doctor",
}


def invoke(command, made):
    words = command.split()
    for name, place in made.items():
        words = [word.replace(name, place) for word in words]
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_output_is_json(name, made):
    done = invoke(f"{COMMANDS[name]} --json", made)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
    assert lines
    assert all(lines)


def test_what_is_said_beside_goes_to_the_standard_error(made):
    command = COMMANDS["trace"]
    done = invoke(f"{command} --json", made)
    assert json.loads(done.stdout)["traced"] == 1
    assert "skipped" in done.stderr
    again = invoke(command, made)
    assert "all held already" in again.stdout, "and only where JSON is asked for"
    assert not console.stderr


def test_every_command_has_it_but_those_whose_results_are_files():
    commands = get_command(app).commands
    without = {name for name, command in commands.items() if not any("--json" in p.opts for p in command.params)}
    assert without == FILES
    assert commands.keys() - FILES - COMMANDS.keys() == {"try", "demo", "meter"}, "tested with their own"


def test_a_number_that_is_none_is_null(capsys):
    print_json({"a": [float("nan"), (1.0, float("inf"))], "b": {"c": True}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1.0, None]], "b": {"c": True}}
