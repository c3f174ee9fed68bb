"""Planted: what is needed is known, and nothing about a step but its chain gives it away."""

import re

import numpy as np
import pytest

from flowtracer.checks.planted.judge import auroc
from flowtracer.errors import InputError
from flowtracer.tasks import Planted, Reason, WorkedTask

TASKS = [Planted(chains=2, length=2), Planted(), Planted(chains=3, length=4)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_prompt_alone_determines_the_answer(task):
    for problem in task.problems("test", 50):
        statements, goal = re.fullmatch(r"(.*)\. ([a-z]) is \?", problem.prompt[0]["content"]).groups()
        definitions = dict(statement.split("=") for statement in statements.split("; "))
        assert len(definitions) == task.chains * task.length

        def value(name, definitions=definitions):
            source, change = re.fullmatch(r"([a-z]?)([+-]?\d)", definitions[name]).groups()
            return int(change) + (value(source) if source else 0)

        assert str(value(goal)) == problem.gold
        assert all(0 <= value(name) <= 9 for name in definitions)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_worked_responses_are_right_and_their_labels_follow_the_chain(task):
    assert isinstance(task, WorkedTask)
    for seed, problem in enumerate(task.problems("train", 50)):
        worked = task.work(problem, seed=seed)
        assert task.verify(problem, worked.text).correct
        lines = [worked.text[step.span.start : step.span.stop] for step in worked.steps]
        assert "".join(lines) + worked.text[worked.steps[-1].span.stop :] == worked.text
        known = {}
        for line in lines:
            values = dict(re.findall(r"([a-z]) is (\d)", line))
            assert known.items() >= {name: values[name] for name in list(values)[:-1]}.items()
            known |= values
        needed = {problem.facts["variable"]}
        for line, step in reversed(list(zip(lines, worked.steps, strict=True))):
            assert step.needed == (line[0] in needed)
            needed |= set(re.findall(r"[a-z](?= is)", line)) if step.needed else set()
        assert sum(step.needed for step in worked.steps) == task.length


def test_position_length_and_form_say_nothing():
    task = Planted()
    scores = {"position": [], "characters": [], "subtraction": [], "value": []}
    for seed, problem in enumerate(task.problems("train", 1500)):
        worked = task.work(problem, seed=seed)
        lines = [worked.text[step.span.start : step.span.stop] for step in worked.steps]
        features = {
            "position": list(range(len(lines))),
            "characters": [len(line) for line in lines],
            "subtraction": [line.count("-") for line in lines],
            "value": [int(line.rstrip(".\n")[-1]) for line in lines],
        }
        needed = np.array([step.needed for step in worked.steps])
        for name, values in features.items():
            scores[name].append(auroc(np.array(values)[needed], np.array(values)[~needed]))
    for name, values in scores.items():
        error = np.std(values) / len(values) ** 0.5
        assert abs(np.mean(values) - 0.5) <= 4 * error, name


def test_a_problem_is_the_same_under_other_names():
    seen = {}
    for problem in Planted(chains=2, length=2).problems("train", 300):
        seen.setdefault(problem.key, problem)
    assert len(seen) == 300
    names = {problem.facts["variable"] for problem in seen.values()}
    assert not any(name in problem.key for problem in seen.values() for name in names - set("of"))


def test_other_answers_have_their_reason():
    task = Planted()
    problem = task.problems("test", 1)[0]
    for answer, reason in [("", Reason.NO_ANSWER), ("x", Reason.NOT_A_NUMBER), ("²", Reason.NOT_A_NUMBER)]:
        assert task.verify(problem, f"<answer>{answer}</answer>").reason is reason


@pytest.mark.parametrize("options", [{"chains": 1}, {"length": 1}, {"chains": 5, "length": 6}])
def test_impossible_options(options):
    with pytest.raises(InputError, match="expected chains"):
        Planted(**options)
