"""Worked responses as tokens, and which of them a model concludes."""

import pytest
import torch

from flowtracer.checks.planted.cases import concluded, work_case
from flowtracer.model.load import load_model
from flowtracer.model.logits import LogitReader
from flowtracer.tasks import Countdown, Planted
from flowtracer.tasks.base import pose

COUNTDOWN = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20)


@pytest.fixture(scope="module")
def nano():
    return load_model("nano")


@pytest.mark.parametrize("task", [Planted(), COUNTDOWN])
def test_tokens_of_steps_and_answer_spell_them(nano, task):
    _, tokenizer = nano
    for problem in task.problems("test", 10):
        case = work_case(tokenizer, task, problem)
        if case is None:
            continue
        lines = case.text.splitlines(keepends=True)
        spelled = [
            tokenizer.decode([token for token, inside in zip(case.response_ids, step_R, strict=True) if inside])
            for step_R in case.steps_SR
        ]
        assert spelled == lines[: len(spelled)]
        answer = [token for token, inside in zip(case.response_ids, case.answer_R, strict=True) if inside]
        assert task.verify(problem, f"<answer>{tokenizer.decode(answer)}</answer>").correct
        assert case.needed_S.tolist() == [
            line.endswith("yes\n") if task is COUNTDOWN else needed
            for line, needed in zip(lines, case.needed_S.tolist(), strict=False)
        ]
        assert case.needed_S.any()
        assert not case.needed_S.all()


def test_problems_without_both_kinds_of_steps_are_left_out(nano):
    _, tokenizer = nano
    made = [work_case(tokenizer, COUNTDOWN, problem) for problem in COUNTDOWN.problems("test", 40)]
    assert 0 < sum(case is None for case in made) < 40
    # (3 + 4) * (5 + 6) needs a bracket on either side, which no attempt from left to right has.
    facts = {"numbers": [3, 4, 5, 6], "target": 77}
    beyond = pose("countdown", key="k", question="q", gold="(3 + 4) * (5 + 6)", facts=facts)
    assert work_case(tokenizer, COUNTDOWN, beyond) is None


def test_concluded_is_what_greedy_decoding_gives(nano):
    model, tokenizer = nano
    task = Planted()
    cases = [work_case(tokenizer, task, problem) for problem in task.problems("test", 10)]
    nine, eight = (tokenizer(digit, add_special_tokens=False)["input_ids"][0] for digit in "98")
    for case in cases[::3]:  # what does not follow from the steps, nano does not say
        (place,) = case.answer_R.nonzero()[0]
        case.response_ids[place] = eight if case.response_ids[place] == nine else nine
    right = concluded(LogitReader(model), cases, rows_per_forward=4)
    assert not set(cases[::3]) & set(right)
    assert right
    for case in cases:
        (place,) = case.answer_R.nonzero()[0]
        with torch.inference_mode():
            ids = torch.tensor([[*case.prompt_ids, *case.response_ids[:place]]])
            likeliest = int(model(input_ids=ids).logits[0, -1].argmax())
        assert (case in right) == (likeliest == case.response_ids[place])
