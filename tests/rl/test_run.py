"""A run file from end to end on a tiny model, and every way to get one wrong."""

import json

import pytest

from flowtracer.errors import InputError
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
    with pytest.raises(InputError, match="output_dir that can be written"):
        train(run)
