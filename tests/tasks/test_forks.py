"""Forks: what decides is known, stands where it should, and nothing else gives the answer away."""

import re

import numpy as np
import pytest

from flowtracer.errors import InputError
from flowtracer.tasks import Forks, WorkedTask, validate
from flowtracer.tasks.forks import DOUBT, PLACES, SURE
from flowtracer.tasks.worked import LabelledTask

TASKS = [Forks(place=place) for place in PLACES] + [Forks(place="middle", ways=3, steps=6, asides=3, free=False)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_gold_is_accepted_and_near_misses_are_refused(task):
    validate(task)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_answer_follows_from_the_forks_alone(task):
    assert isinstance(task, WorkedTask)
    for seed, problem in enumerate(task.problems("train", 100)):
        answers = {}
        for number in range(20):
            text = task.work(problem, seed=seed + number, slips=True).text
            named = tuple(text[span.start : span.stop - 1] for span in task.decisive(problem, text))
            assert len(named) == task.forks
            end = text.split("\n")[-1]
            assert answers.setdefault(named, end) == end  # whatever the asides say
            assert task.verify(problem, text).correct == (list(named) == problem.facts["asked"])
        assert len(set(answers.values())) == len(answers)  # no wrong way is right by chance
        assert task.verify(problem, task.work(problem).text).correct


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_every_line_is_true(task):
    for problem in task.problems("train", 50):
        text = task.work(problem, slips=True).text
        value = None
        for line in text.split("\n")[:-1]:
            name, shown, result = re.fullmatch(r"([a-z])=(.+), [a-z] is (\d)\.", line).groups()
            first, sign, second = re.fullmatch(r"(\d)(?:([+-])(\d))?", shown).groups()
            assert int(result) == int(first) + int(f"{sign}{second}" if sign else 0)
            assert f", {name} is" in line
            if sign or value is None:
                assert value in (None, first)  # goes on from what was reached, past the asides
                value = result
        assert text.endswith(f"<answer>{value}</answer>")


@pytest.mark.parametrize("place", PLACES[:3])
def test_a_fork_stands_at_its_place(place):
    task = Forks(place=place)
    for problem in task.problems("train", 30):
        text = task.work(problem, slips=True).text
        (fork,) = task.decisive(problem, text)
        before = text[: fork.start].count("\n") - 1  # after the start
        assert before / (task.steps + task.asides) == {"early": 0, "middle": 0.5, "late": 1}[place]


def test_scattered_forks_stand_anywhere():
    task = Forks(place="scattered")
    texts = [(problem, task.work(problem, slips=True).text) for problem in task.problems("train", 300)]
    places = np.array([[span.start / len(text) for span in task.decisive(problem, text)] for problem, text in texts])
    assert places.shape == (300, 2)
    assert (places[:, 0] < places[:, 1]).all()
    assert places.min() < 0.15
    assert places.max() > 0.7
    assert 0.35 < places.mean() < 0.65


def test_the_teacher_slips_as_it_says():
    task = Forks(place="early")
    rights, chances = [], []
    for problem in task.problems("train", 1000):
        (wanted,) = [way for way in problem.facts["statements"][0]["ways"] if way["variable"] in problem.facts["asked"]]
        chances.append(SURE - DOUBT * abs(wanted["change"]))
        rights.append(task.verify(problem, task.work(problem, slips=True).text).correct)
    rights, chances = np.array(rights), np.array(chances)
    error = (chances * (1 - chances)).sum() ** 0.5 / len(chances)
    assert abs(rights.mean() - chances.mean()) < 4 * error
    assert rights[chances > 0.7].mean() > rights[chances < 0.4].mean() + 0.2


def test_needed_is_all_but_the_asides():
    task = Forks(place="scattered")
    for problem in task.problems("train", 30):
        worked = task.work(problem)
        lines = [worked.text[step.span.start : step.span.stop] for step in worked.steps]
        aside = {s["ways"][0]["variable"] for s in problem.facts["statements"] if s["aside"]}
        assert [step.needed for step in worked.steps] == [line[0] not in aside for line in lines]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_labels_tile_a_response_and_need_its_forks_alone(task):
    assert isinstance(task, LabelledTask)
    for problem in task.problems("train", 20):
        text = task.work(problem, slips=True).text
        steps = task.label(problem, text)
        assert "".join(text[step.span.start : step.span.stop] for step in steps) == text
        assert [step.span for step in steps if step.needed] == task.decisive(problem, text)


def test_a_text_without_forks_has_nothing_decisive():
    task = Forks(place="early")
    (problem,) = task.problems("train", 1)
    (forked,) = [s for s in problem.facts["statements"] if len(s["ways"]) > 1]
    name = forked["ways"][0]["variable"]
    assert task.decisive(problem, f"they say {name}=3\n{name} is 3, 1=2\n") == []
    assert len(task.decisive(problem, f"{name}=3\n{name}=4\n")) == 1  # the first decides


@pytest.mark.parametrize(
    "options",
    [{"place": "nowhere"}, {"ways": 1}, {"ways": 5}, {"steps": 0}, {"asides": -1}, {"steps": 15, "asides": 9}],
)
def test_options_that_cannot_be(options):
    with pytest.raises(InputError, match="expected"):
        Forks(**options)
