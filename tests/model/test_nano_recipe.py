"""The recipe of the packaged model: its tokenizer, its examples, and a training that goes on where it stopped."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flowtracer.evaluation.accuracy import judge, respond
from flowtracer.model.load import load_model
from flowtracer.tasks import Countdown, Forks, Planted, split_of
from flowtracer.tasks.forks import PLACES

RECIPE = Path(__file__).parents[2] / "recipes" / "nano"


@pytest.fixture(scope="module")
def recipe():
    sys.path.insert(0, str(RECIPE))
    import data
    import tokenizer

    yield data, tokenizer
    sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def nano_tokenizer():
    return load_model("nano")[1]


def test_the_packaged_tokenizer_is_the_recipes(recipe, nano_tokenizer):
    made = recipe[1].make_tokenizer()
    assert made.get_vocab() == nano_tokenizer.get_vocab()
    assert made.chat_template == nano_tokenizer.chat_template


@pytest.mark.parametrize(
    "text",
    [
        "Make 26 from 3, 5, 7.",
        "k=7; b=a+3. b is ?",
        "3+5=8, 8*7=56, no\n<answer>(3+5)*7</answer>",
        "1000 zebras, <|end|> and 🙂\n\n\ttabs",
    ],
)
def test_any_text_comes_back(nano_tokenizer, text):
    ids = nano_tokenizer(text)["input_ids"]
    assert nano_tokenizer.decode(ids) == text


def test_names_and_numbers_are_one_token(recipe, nano_tokenizer):
    for piece in [*recipe[1].PHRASES, *map(str, range(recipe[1].LARGEST + 1))]:
        assert len(nano_tokenizer(piece)["input_ids"]) == 1, piece


def test_examples_are_of_the_train_split_in_the_chat_template(recipe, nano_tokenizer):
    data, _ = recipe
    countdown, planted = Countdown(brief=True), Planted()
    for example in data.examples(nano_tokenizer, 200, seed="test", teacher=data.STAGES[0]):
        prompt = nano_tokenizer.decode(example.prompt)
        question = prompt.removeprefix("<|user|>").removesuffix("<|assistant|>")
        messages = [{"role": "user", "content": question}]
        assert nano_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt
        assert example.response[-1] == nano_tokenizer.eos_token_id
        if question.startswith("Make"):
            target, numbers = question.removeprefix("Make ").removesuffix(".").split(" from ")
            problem = countdown.pose([int(n) for n in numbers.split(", ")], int(target), "")
            assert split_of(problem.key) == "train"
            assert countdown.verify(problem, nano_tokenizer.decode(example.response)).correct
        else:
            assert planted.verify is not None
            assert question.endswith(" is ?")


def test_forks_are_of_the_train_split_and_slip(recipe):
    data, _ = recipe
    rng = Random(0)
    for teacher, low, high in zip(data.STAGES, (1.0, 0.3), (1.0, 0.8), strict=True):
        drawn = [data.draw(rng, teacher, data.MIXTURES["forks"]) for _ in range(200)]
        assert {split_of(problem.key) for problem, _ in drawn} == {"train"}
        assert {len(problem.facts["asked"]) for problem, _ in drawn} == {1, 2}
        right = [Forks().verify(problem, response).correct for problem, response in drawn]
        assert low <= sum(right) / len(right) <= high


@pytest.mark.parametrize("place", PLACES)
def test_nano_forks_decides_at_the_forks(place):
    task = Forks(place=place)
    model, tokenizer = load_model("nano-forks")
    problems = task.problems("validation", 60)
    responses = respond(model, tokenizer, problems, temperature=1.0, max_new_tokens=80)
    verdicts = judge(task, problems, responses)
    named = [[r[s.start : s.stop - 1] for s in task.decisive(p, r)] for p, r in zip(problems, responses, strict=True)]
    as_asked = np.array([names == problem.facts["asked"] for names, problem in zip(named, problems, strict=True)])
    right = np.array([verdict.correct for verdict in verdicts])
    assert 0.1 < right.mean() < 0.9
    assert right[as_asked].mean() > 0.8
    assert right[~as_asked].mean() < 0.2
    assert sum(verdict.well_formed for verdict in verdicts) > 55


def test_training_goes_on_where_it_stopped(tmp_path):
    def train(folder, steps):
        command = [sys.executable, "train.py", "--out", str(tmp_path / folder), "--steps", str(steps)]
        command += [
            "--plan",
            "4",
            "--save-steps",
            "2",
            "--accumulate",
            "1",
            "--no-compile",
            "--threads",
            "1",
            "--dtype",
            "float32",
        ]
        subprocess.run(command, cwd=RECIPE, check=True, capture_output=True)
        return load_file(tmp_path / folder / "model" / "model.safetensors")

    whole = train("whole", 4)
    train("parts", 2)
    parts = train("parts", 4)
    assert json.loads((tmp_path / "parts" / "step.json").read_text()) == {"step": 4}
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
