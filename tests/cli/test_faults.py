"""What a full disk does to each command, and files in which nothing can be used."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from flowtracer import cli
from flowtracer.errors import InputError, StorageError
from flowtracer.model import load
from flowtracer.trace.trace import find_traces
from limits import no_file_above

QUESTION = [{"role": "user", "content": "k=7; b=a+3; a=2; m=k-1. b is ?"}]
RESPONSE = "a=2, a is 2.\nk=7, k is 7.\nb=a+3, a is 2, b is 5.\nm=k-1, k is 7, m is 6.\n<answer>5</answer>"

RUN = """
model = "{model}"
output_dir = "{out}"
[task]
name = "countdown"
problems = 8
[grpo]
max_steps = 2
per_device_train_batch_size = 2
num_generations = 2
max_completion_length = 8
save_steps = 1
"""


@pytest.fixture
def rollouts(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": QUESTION, "response": RESPONSE, "id": f"r{n}"}) + "\n" for n in range(3))
    )
    return file


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def files_of(folder):
    """What stands in a folder, but for who held it."""
    hidden = (".lock", ".lock.pid")
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in hidden
    }


def whole_then_short(out, limit, *arguments):
    """A command with room, and without it first; what is left of the second must be what the first wrote."""
    whole, short = out / "whole", out / "short"
    assert invoke(*arguments, "--out", whole).exit_code == 0
    with no_file_above(limit):
        failed = invoke(*arguments, "--out", short)
    assert isinstance(failed.exception, StorageError), failed.output
    assert re.search(
        f"room for results in '{short}.*got File too large; make room, and run again", str(failed.exception)
    )
    assert not [name for name in files_of(short) if name.name.endswith(".partial")]
    assert invoke(*arguments, "--out", short).exit_code == 0
    return files_of(whole), files_of(short)


def test_trace_without_room(rollouts, tmp_path):
    whole, short = whole_then_short(tmp_path, 3_000, "trace", rollouts, "--model", "nano", "--show", "0")
    assert whole == short


def test_mask_without_room(rollouts, tmp_path):
    whole, short = whole_then_short(tmp_path, 1_000, "mask", rollouts, "--model", "nano")
    assert whole == short


def test_pages_and_figures_without_room(rollouts, tmp_path):
    traces = tmp_path / "traces"
    assert invoke("trace", rollouts, "--model", "nano", "--show", "0", "--out", traces).exit_code == 0
    whole, short = whole_then_short(tmp_path / "pages", 50_000, "page", traces)
    assert whole == short
    whole, short = whole_then_short(tmp_path / "figures", 5_000, "plot", traces, "--figure", "positions")
    assert whole == short
    one = find_traces(traces)[0]
    with no_file_above(50_000):
        assert isinstance(invoke("page", one, "--out", tmp_path / "one.html").exception, StorageError)
    assert not list(tmp_path.glob("*one.html*"))


@pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")
def test_train_without_room(model, tmp_path):
    file, out = tmp_path / "run.toml", tmp_path / "out"
    file.write_text(RUN.format(model=model, out=out))
    with no_file_above(20_000):
        assert isinstance(invoke("train", file).exception, StorageError)
    assert invoke("train", file).exit_code == 0
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()][:2] == [1, 2]


def test_no_room_is_a_message_and_not_a_traceback(rollouts, tmp_path, monkeypatch, capsys):
    command = ["flowtracer", "trace", rollouts, "--model", "nano", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    with no_file_above(3_000), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: expected room for results in")


@pytest.mark.parametrize("command", ["trace", "mask"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"a": 1}, {"b": 2}], "got none in 2: 2 unknown_schema; the first: expected prompt with response"),
        (
            [
                {"prompt": "k", "response": "no idea"},
                {"prompt": "k", "response": ""},
                {"prompt": "k", "response": "no"},
            ],
            "got none in 3: 2 no_answer, 1 empty_response; the first: expected .*, got none",
        ),
    ],
)
def test_a_file_of_nothing_that_can_be_used_loads_no_model(tmp_path, monkeypatch, command, lines, message):
    file = tmp_path / "rollouts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(load, "load_model", None)
    done = invoke(command, file, "--model", "nano", "--out", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    assert re.search(message, str(done.exception))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "done"), [("trace", "traced"), ("mask", "checked")])
def test_a_file_of_rollouts_that_are_all_too_long(tmp_path, command, done):
    file = tmp_path / "rollouts.jsonl"
    file.write_text(json.dumps({"prompt": QUESTION, "response": f"{'a=2, a is 2. ' * 100}\n{RESPONSE}"}) + "\n")
    ended = invoke(command, file, "--model", "nano", "--out", tmp_path / "out")
    assert isinstance(ended.exception, InputError)
    assert str(ended.exception) == f"expected at least one rollout that can be {done}, got none: 1 too_long; see above"


def test_a_rollout_that_is_too_long_to_hide_in(rollouts, tmp_path):
    ended = invoke("mask", rollouts, "--model", "nano", "--out", tmp_path / "out", "--longest", "50")
    assert "got none: 3 too_long" in str(ended.exception)
    assert "expected at most 50 tokens, got" in re.sub(r"\s+", " ", ended.output)


@pytest.mark.parametrize("command", ["trace", "mask"])
def test_an_answer_in_a_way_of_its_own(tmp_path, command):
    file = tmp_path / "rollouts.jsonl"
    file.write_text(
        json.dumps({"prompt": QUESTION, "response": RESPONSE.replace("<answer>5</answer>", "Result 5")}) + "\n"
    )
    arguments = (command, file, "--model", "nano", "--out", tmp_path / "out")
    assert "got none in 1: 1 no_answer" in str(invoke(*arguments).exception)
    assert "with a group that is the answer" in str(invoke(*arguments, "--answer-pattern", "Result").exception)
    assert invoke(*arguments, "--answer-pattern", r"Result (\d+)").exit_code == 0
    refused = invoke(*arguments, "--answer-pattern", r"Result (\d)")
    assert r'answer_pattern "Result (\\d)" instead of "Result (\\d+)"' in str(refused.exception)


def test_ctrl_c_twice_and_started_again(tmp_path):
    file, whole, out = tmp_path / "rollouts.jsonl", tmp_path / "whole", tmp_path / "out"
    line = {"prompt": QUESTION, "response": RESPONSE}
    file.write_text("".join(json.dumps(line | {"id": f"r{n}"}) + "\n" for n in range(240)))  # several forwards
    arguments = ["trace", file, "--model", "nano", "--show", "0", "--out"]
    assert invoke(*arguments, whole).exit_code == 0
    code = "from flowtracer.cli import main; main()"
    # Niced: on a loaded machine it must not be done before this process looks again.
    command = ["nice", "-n", "19", sys.executable, "-c", code, *map(str, arguments), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(out.glob("traces/*.safetensors")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() != 0
    assert len(list(out.glob("traces/*.safetensors"))) < 240
    assert invoke(*arguments, out).exit_code == 0
    assert files_of(out) == files_of(whole)
