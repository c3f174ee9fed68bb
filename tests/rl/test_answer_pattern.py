"""Responses that state their answer in their own way: in tracer, trainer, a loop of one's own and a run file."""

import json
import warnings

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.errors import InputError
from flowtracer.rl.run import read_run_file, train
from flowtracer.rl.trl_trainer import FlowGRPOTrainer
from tiny import tiny_model, tiny_tokenizer
from trainers import make_trainer

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")

PATTERN = r"Result: (\d+)"
PROMPT, RESPONSE = "what is 3 + 4?", "3 + 4 = 7, so a e.\nResult: 7\n"


def by_hand(text):
    """The same as the pattern."""
    start = text.find("Result: ")
    return None if start < 0 else (start + 8, start + 9)


class Resulting(FlowGRPOTrainer):
    """Samples responses that say "Result:", of different reward."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        ids, *rest = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        texts = [RESPONSE, "i" + RESPONSE]
        made = [self.processing_class(texts[i % 2])["input_ids"] for i in range(len(ids))]
        return [[*row, self.processing_class.eos_token_id] for row in made], *rest


def run(tmp_path, **options):
    trainer = make_trainer(tmp_path, Resulting, max_completion_length=40, **options)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trainer.train()
    said = [str(warning.message) for warning in warned if "expected answers" in str(warning.message)]
    return [line for line in trainer.state.log_history if "credit/answered" in line], said


def test_a_trainer_says_once_that_no_response_has_an_answer_and_a_pattern_finds_them(tmp_path):
    lines, said = run(tmp_path / "none")
    assert [line["credit/answered"] for line in lines] == [0, 0]
    assert len(said) == 1
    assert said[0].startswith("expected answers in the first responses, got none (no_answer 100%): ")
    assert "answer_pattern" in said[0]
    lines, said = run(tmp_path / "all", answer_pattern=PATTERN)
    assert [line["credit/traced"] for line in lines] == [1, 1]
    assert said == []


def test_a_function_finds_what_a_pattern_finds():
    prompt_ids, response_ids = (tiny_tokenizer()(text)["input_ids"] for text in (PROMPT, RESPONSE))
    given = (tiny_model().eval(), tiny_tokenizer(), [prompt_ids], [response_ids], [1.0], "flow")
    assert ft.credit_weights(*given).misses == {"no_answer": 1}
    one, other = (ft.credit_weights(*given, answer_pattern=pattern) for pattern in (PATTERN, by_hand))
    assert one.misses == other.misses == {}
    assert torch.equal(one.weights_BR, other.weights_BR)
    assert one.weights_BR.unique().numel() > 1


def test_a_tracer_finds_what_it_is_given():
    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    given = ft.Tracer(model, tokenizer).trace(PROMPT, RESPONSE, "7")
    for pattern in (PATTERN, by_hand):
        found = ft.Tracer(model, tokenizer, answer_pattern=pattern).trace(PROMPT, RESPONSE)
        assert found.answer_rule == "pattern"
        assert found.answer == given.answer
        assert np.array_equal(found.flow, given.flow)
    with pytest.raises(InputError, match="with a group that is the answer"):
        ft.Tracer(model, tokenizer, answer_pattern="Result")


RUN = """
model = "{model}"
output_dir = "{out}"
[task]
name = "countdown"
problems = 8
[credit]
name = "flow"
{pattern}
[grpo]
max_steps = 1
per_device_train_batch_size = 2
num_generations = 2
max_completion_length = 8
"""


@pytest.mark.parametrize("pattern", [r"answer_pattern = '(\S)'", ""])
def test_a_run_file_says_it_and_a_folder_without_stays_what_it_was(model, tmp_path, pattern):
    file, seen = tmp_path / "run.toml", []
    file.write_text(RUN.format(model=model, out=tmp_path / "out", pattern=pattern))
    train(read_run_file(file), on_log=seen.append)
    assert (seen[0]["credit/answered"] > 0) == bool(pattern)
    kept = json.loads((tmp_path / "out" / "options.json").read_text())
    assert kept.get("credit.answer_pattern") == (r"(\S)" if pattern else None)
    assert ("credit.answer_pattern" in kept) == bool(pattern)


def test_a_run_file_with_a_pattern_that_is_none(model, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(RUN.format(model=model, out=tmp_path / "out", pattern="answer_pattern = 'x('"))
    with pytest.raises(InputError, match="expected answer_pattern as a regular expression, got 'x\\('"):
        train(read_run_file(file))
