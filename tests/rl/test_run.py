"""A run file from end to end on a tiny model, and every way to get one wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import InputError, StorageError
from flowtracer.rl.run import read_run_file, reward_function, train, training_arguments
from flowtracer.tasks import TASKS, make_task
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")

RUN = """
# flowtracer train run.toml
model = "{model}"
output_dir = "{out}"

[task]
name = "countdown"
problems = 8
format_reward = 0.1

[task.options]
max_numbers = 3

[credit]
name = "flow"

[credit.options]
gamma = 2.0
at = "prediction"

[traces]
every = 3
prompts = 2

[grpo]
max_steps = {steps}
per_device_train_batch_size = 2
num_generations = 2
max_completion_length = 8
save_steps = 2
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    return file


def test_a_run_trains_logs_saves_and_resumes(model, tmp_path):
    out = tmp_path / "out"
    seen = []
    final = train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=2))), on_log=seen.append)
    assert (final / "model.safetensors").exists()
    assert (out / "checkpoint-2").is_dir()
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=4))), on_log=seen.append)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert lines == seen
    assert [line["step"] for line in lines if "reward" in line] == [1, 2, 3, 4], "the second run goes on from step 2"
    assert [path.name for path in sorted((out / "traces").iterdir())] == ["step-000000", "step-000003"]
    for name in ("credit/boosted_share", "credit/seconds", "credit/traced", "step_time"):
        assert name in lines[0]


@pytest.mark.parametrize(("name", "option"), [("progress", "weight = 1.0"), ("local", "layers = [1, 2]")])
def test_a_run_file_names_any_strategy(model, tmp_path, name, option):
    text = RUN.format(model=model, out=tmp_path / "out", steps=1).replace('name = "flow"', f'name = "{name}"')
    text = text.replace('gamma = 2.0\nat = "prediction"', option)
    seen = []
    train(read_run_file(write(tmp_path, text)), on_log=seen.append)
    assert seen[0]["credit/mean_factor"] >= 0


def test_options_reach_the_trainer(model, tmp_path):
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=tmp_path, steps=2)))
    arguments = training_arguments(run)
    assert (arguments.credit, arguments.credit_options) == ("flow", {"gamma": 2.0, "at": "prediction"})
    assert (arguments.trace_steps, arguments.trace_prompts) == (3, 2)
    assert (arguments.max_steps, arguments.learning_rate, arguments.seed) == (2, 1e-3, 0)


def test_rewards_are_the_tasks():
    section = read_section()
    task = make_task(section.name, section.options)
    problems = task.problems("train", 3)
    reward = reward_function(task, problems, format_reward=0.1)
    ids = [p.id for p in problems]
    right = [f"<answer>{p.gold}</answer>" for p in problems]
    assert reward(right, ids) == [1.0, 1.0, 1.0]
    assert reward([[{"role": "assistant", "content": text}] for text in right], ids) == [1.0, 1.0, 1.0]
    assert reward(["<answer>1</answer>", "none", ""], ids) == [0.1, 0.0, 0.0]


def read_section():
    from flowtracer.rl.run import TaskSection

    return TaskSection(name="countdown")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[task]", "[tusk]", "task.name: field required; tusk"),
        ("problems = 8", "problems = -1", "task.problems: input should be greater than 0"),
        ("problems = 8", "problem = 8", "task.problem: extra inputs"),
        ('model = "', 'model = 3 # "', "model: input should be a valid string"),
        ("max_steps = 2", "max_steps = ", "expected a TOML run file"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, old, new, message):
    text = RUN.format(model="m", out="o", steps=2)
    assert old in text
    with pytest.raises(InputError, match=message):
        read_run_file(write(tmp_path, text.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "countdown"', 'name = "sudoku"', f"among .*{sorted(TASKS)[0]}"),
        ("max_numbers = 3", "most = 3", "expected options of task 'countdown'"),
        ("max_steps = 2", "max_stepps = 2", "max_stepps"),
        ('name = "flow"', 'name = "flaw"', "expected a credit among"),
        ('at = "prediction"', 'at = "end"', "expected at among token, prediction"),
    ],
)
def test_a_wrong_name_is_named_before_anything_is_written(model, tmp_path, old, new, message):
    out = tmp_path / "out"
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=2).replace(old, new)))
    with pytest.raises(InputError, match=message):
        train(run)
    assert not (out / "final").exists()


def test_an_output_folder_that_cannot_be_written(model, tmp_path):
    (tmp_path / "file").write_text("")
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=tmp_path / "file" / "out", steps=2)))
    with pytest.raises(InputError, match="folder that can be written"):
        train(run)


def steps_of(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "reward" in line]


def test_an_edited_run_file_is_refused_with_old_and_new_values(model, tmp_path):
    text = RUN.format(model=model, out=tmp_path / "out", steps=2)
    train(read_run_file(write(tmp_path, text)))
    before = (tmp_path / "out" / "log.jsonl").read_text()
    edits = [
        ("gamma = 2.0", "gamma = 3.0", "credit.options.gamma 3.0 instead of 2.0; choose another folder"),
        ('name = "flow"', 'name = "shuffled"', 'credit.name "shuffled" instead of "flow"'),
        ("learning_rate = 1e-3", "learning_rate = 2e-3", "grpo.learning_rate 0.002 instead of 0.001"),
        ("learning_rate = 1e-3", "", "grpo.learning_rate none instead of 0.001"),
        ("problems = 8", "problems = 9", "task.problems 9 instead of 8"),
    ]
    for steps in (2, 4):
        for old, new, message in edits:
            edited = text.replace(old, new).replace("max_steps = 2", f"max_steps = {steps}")
            with pytest.raises(InputError, match=message):
                train(read_run_file(write(tmp_path, edited)))
    assert (tmp_path / "out" / "log.jsonl").read_text() == before


def test_another_model_under_the_same_name_is_another_run(tmp_path):
    model = tmp_path / "model"
    tiny_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=tmp_path / "out", steps=2))))
    tiny_model(seed=1).save_pretrained(model)
    with pytest.raises(InputError, match="model_files"):
        train(read_run_file(write(tmp_path, RUN.format(model=model, out=tmp_path / "out", steps=4))))


@pytest.mark.parametrize("length", ["max_steps = 3", "num_train_epochs = 0.4"])
def test_a_run_that_is_done_says_so_and_takes_no_step(model, tmp_path, length):
    out = tmp_path / "out"
    text = RUN.format(model=model, out=out, steps=0).replace("max_steps = 0", length)
    final = train(read_run_file(write(tmp_path, text)))
    log, weights = (out / "log.jsonl").read_bytes(), (final / "model.safetensors").read_bytes()
    said = []
    assert train(read_run_file(write(tmp_path, text)), on_log=said.append, on_say=said.append) == final
    assert said == [f"done before, nothing is left to do: {final}"]
    shown = CliRunner().invoke(app, ["train", str(write(tmp_path, text))])
    assert shown.exit_code == 0
    assert "done before, nothing is left to do" in shown.output
    assert "0/?" not in shown.output
    # A kill between the last checkpoint and the final weights.
    (out / "finished.json").unlink()
    (final / "model.safetensors").unlink()
    said.clear()
    train(read_run_file(write(tmp_path, text)), on_say=said.append)
    last = steps_of(out)[-1]
    assert said == [f"going on from step {last}", f"done before, after {last} steps of {last}"]
    assert (out / "log.jsonl").read_bytes() == log
    assert (final / "model.safetensors").read_bytes() == weights


def test_a_run_without_checkpoints_is_not_begun_anew_unasked(model, tmp_path):
    text = RUN.format(model=model, out=tmp_path / "out", steps=1).replace("save_steps = 2", 'save_strategy = "no"')
    train(read_run_file(write(tmp_path, text)))
    with pytest.raises(InputError, match="expected a checkpoint to go on from"):
        train(read_run_file(write(tmp_path, text.replace("max_steps = 1", "max_steps = 2"))))


class Stopped(Exception):
    pass


def stop_at(step):
    def stop(line):
        if line["step"] == step:
            raise Stopped

    return stop


def weights_of(out):
    return load_file(out / "final" / "model.safetensors")


def test_what_the_log_says_of_steps_beyond_the_checkpoint_goes(model, tmp_path):
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=tmp_path / "whole", steps=4)))
    train(run)
    out = tmp_path / "parts"
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=4)))
    for stop, logged in ((1, [1]), (3, [1, 2, 3]), (3, [1, 2, 3])):
        with pytest.raises(Stopped):
            train(run, on_log=stop_at(stop))
        assert steps_of(out) == logged
    train(run)
    assert steps_of(out) == [1, 2, 3, 4]
    expected, got = weights_of(tmp_path / "whole"), weights_of(out)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda data: data[:-5]),
        ("optimizer.pt", lambda data: data[: len(data) // 2]),
        ("trainer_state.json", lambda data: data[:20]),
        ("model.safetensors", lambda data: data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]),
        ("tokenizer.json", lambda data: data[:-1]),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_for_an_older_one(model, tmp_path, name, damage):
    out, said = tmp_path / "out", []
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=4))))
    file = out / "checkpoint-4" / name
    file.write_bytes(damage(file.read_bytes()))
    (out / "checkpoint-6").mkdir()  # a kill in the middle of writing one
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=6))), on_say=said.append)
    assert said == ["checkpoint-4 is damaged and set aside as damaged-checkpoint-4", "going on from step 2"]
    assert steps_of(out) == [1, 2, 3, 4, 5, 6]
    assert (out / "checkpoint-4" / name).exists()


def test_a_clock_that_was_set_back_costs_no_checkpoint(model, tmp_path):
    out = tmp_path / "out"
    text = RUN.format(model=model, out=out, steps=6).replace("save_steps = 2", "save_steps = 2\nsave_total_limit = 1")

    def set_back(line):  # between two checkpoints
        for checkpoint in out.glob("checkpoint-*") if line["step"] % 2 else ():
            os.utime(checkpoint, (time.time() + 3600,) * 2)

    train(read_run_file(write(tmp_path, text)), on_log=set_back)
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-6"]


def test_an_output_folder_that_vanishes(model, tmp_path):
    out = tmp_path / "out"
    run = read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=3)))
    with pytest.raises(StorageError, match=f"room for results in '{out}', got "):
        train(run, on_log=lambda line: shutil.rmtree(out, ignore_errors=True))


def test_a_checkpoint_without_checksums_is_one_of_an_older_version(model, tmp_path):
    out, said = tmp_path / "out", []
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=2))))
    (out / "checkpoint-2" / "checksums.json").unlink()
    train(read_run_file(write(tmp_path, RUN.format(model=model, out=out, steps=4))), on_say=said.append)
    assert said == ["going on from step 2"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("num_generations = -4", "expected num_generations under .grpo. of at least 2, got -4"),
        ("num_generations = 3", r"go together, got .*generation_batch_size \(2\) must be divisible"),
        ("per_device_train_batch_size = -1", "per_device_train_batch_size under .grpo. of at least 1"),
        ("gradient_accumulation_steps = 0", "gradient_accumulation_steps under .grpo. of at least 1"),
        ("temperature = 0.0", "temperature under .grpo. of at least"),
        (
            'learning_rate = "fast"',
            "expected learning_rate under .grpo. to be right, got 'fast': input",
        ),
        ("bf16 = 1", "expected bf16 under .grpo. to be right, got 1: input should be a valid boolean"),
        ('lr_scheduler_type = "foo"', "foo is not a valid SchedulerType"),
        ("reward_weights = [1.0, 2.0]", "Number of reward weights"),
        ('report_to = "foo"', "expected report_to under .grpo. among .*wandb.*, got 'foo'"),
        ('report_to = "neptune"', "expected the library of report_to = 'neptune', got none; install it"),
        ("seed = 3", "expected seed at the top of a run file, got it under .grpo.; move it there"),
        ('credit = "flow"', "expected credit as name under .credit. of a run file"),
    ],
)
def test_an_option_that_trl_would_fail_at_is_named_before_the_folder_is_claimed(model, tmp_path, option, message):
    name = option.split(" = ")[0]
    lines = RUN.format(model=model, out=tmp_path / "out", steps=2).splitlines()
    text = "\n".join([*(line for line in lines if not line.startswith(name)), option])
    with pytest.raises(InputError, match=message):
        train(read_run_file(write(tmp_path, text)))
    assert not (tmp_path / "out" / "options.json").exists()


def test_a_typo_is_told_before_problems_are_made(model, tmp_path, monkeypatch):
    monkeypatch.setattr(TASKS["countdown"], "problems", lambda *_: pytest.fail("problems were made"))
    text = RUN.format(model=model, out=tmp_path / "out", steps=2)
    for old, new in (
        ('name = "flow"', 'name = "flwo"'),
        ("gamma", "gama"),
        ("num_generations = 2", "num_generations = 1"),
    ):
        with pytest.raises(InputError):
            train(read_run_file(write(tmp_path, text.replace(old, new))))


def test_a_tracker_that_is_away_costs_its_curves_and_not_the_run(model, tmp_path, monkeypatch):
    asked = []

    class Away(TrainerCallback):
        def on_train_begin(self, *_, **__):
            asked.append("begin")

        def on_log(self, *_, **__):
            asked.append("log")
            raise ConnectionError("no route to host")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Away)
    out = tmp_path / "out"
    text = RUN.format(model=model, out=out, steps=2) + '\nreport_to = "tensorboard"\n'
    with pytest.warns(UserWarning, match="expected Away to take what the run reports, got ConnectionError"):
        train(read_run_file(write(tmp_path, text)))
    assert steps_of(out) == [1, 2]
    assert asked == ["begin", "log"], "once it has failed it is asked nothing more"


def test_two_processes_in_one_folder(model, tmp_path):
    out = tmp_path / "out"
    file = write(tmp_path, RUN.format(model=model, out=out, steps=100_000))
    command = [sys.executable, "-c", "from flowtracer.cli import main; main()", "train", str(file)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(out.glob("checkpoint-*/trainer_state.json")):
            assert first.poll() is None
            time.sleep(0.05)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert f"no other process writes to, got '{out}', held by process {first.pid}" in " ".join(
            second.stderr.replace("\n", " ").split()
        )
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    lines = steps_of(out)
    assert lines == sorted(set(lines))
    seen = []
    with pytest.raises(Stopped):
        train(read_run_file(file), on_log=lambda line: seen.append(line["step"]) or stop_at(line["step"])(line))
    assert 2 < seen[0] <= lines[-1] + 1
    lines = steps_of(out)
    assert lines == sorted(set(lines))
