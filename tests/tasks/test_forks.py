"""Forks: what decides is known, stands where it should, and nothing else gives the answer away."""

import numpy as np
import pytest

from flowtracer.errors import InputError
from flowtracer.tasks import Forks, WorkedTask, validate
from flowtracer.tasks.forks import DOUBT, PLACES, SURE
from flowtracer.tasks.worked import LabelledTask

TASKS = [Forks(place=place) for place in PLACES] + [Forks(place="middle", chains=4, length=3)]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_gold_is_accepted_and_near_misses_are_refused(task):
    validate(task)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_answer_follows_from_the_forks_alone(task):
    assert isinstance(task, WorkedTask)
    for seed, problem in enumerate(task.problems("train", 100)):
        ends = {links[-1]["variable"]: str(links[-1]["value"]) for links in problem.facts["chains"]}
        right, slipped = (task.work(problem, seed=seed, slips=slips).text for slips in (False, True))
        for text in (right, slipped):
            named = [text[span.start : span.stop].removesuffix(" is ") for span in task.decisive(problem, text)]
            assert f"<answer>{', '.join(ends[name] for name in named)}</answer>" in text
            wanted = [problem.facts["chains"][number][-1]["variable"] for number in problem.facts["asked"]]
            assert task.verify(problem, text).correct == (named == wanted)
        assert task.verify(problem, right).correct


@pytest.mark.parametrize("place", PLACES[:3])
def test_a_fork_stands_at_its_place(place):
    task = Forks(place=place)
    for problem in task.problems("train", 30):
        text = task.work(problem, slips=True).text
        (fork,) = task.decisive(problem, text)
        before = text[: fork.start].count("\n") / (task.chains * task.length)
        assert before == {"early": 0, "middle": 0.5, "late": 1}[place]


def test_scattered_forks_stand_anywhere():
    task = Forks(place="scattered")
    texts = [(problem, task.work(problem, slips=True).text) for problem in task.problems("train", 300)]
    places = np.array([[span.start / len(text) for span in task.decisive(problem, text)] for problem, text in texts])
    assert places.shape == (300, 2)
    assert (places[:, 0] < places[:, 1]).all()
    assert places.min() < 0.05
    assert places.max() > 0.6
    assert 0.3 < places.mean() < 0.6


def test_the_teacher_slips_as_it_says():
    task = Forks(place="early")
    rights, chances = [], []
    for problem in task.problems("train", 1000):
        (asked,) = problem.facts["asked"]
        chances.append(SURE - DOUBT * abs(problem.facts["chains"][asked][-1]["change"]))
        rights.append(task.verify(problem, task.work(problem, slips=True).text).correct)
    rights, chances = np.array(rights), np.array(chances)
    error = (chances * (1 - chances)).sum() ** 0.5 / len(chances)
    assert abs(rights.mean() - chances.mean()) < 4 * error
    assert rights[chances > 0.7].mean() > rights[chances < 0.4].mean() + 0.2


def test_needed_are_the_forks_and_what_they_name():
    task = Forks(place="scattered")
    for problem in task.problems("train", 30):
        worked = task.work(problem)
        lines = [worked.text[step.span.start : step.span.stop] for step in worked.steps]
        wanted = {link["variable"] for number in problem.facts["asked"] for link in problem.facts["chains"][number]}
        assert [step.needed for step in worked.steps] == [line[0] in wanted for line in lines]


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
    assert task.decisive(problem, "b is ? they say\n3 is ?\n") == []


@pytest.mark.parametrize("options", [{"place": "nowhere"}, {"chains": 2}, {"length": 1}, {"chains": 9, "length": 3}])
def test_options_that_cannot_be(options):
    with pytest.raises(InputError, match="expected"):
        Forks(**options)
