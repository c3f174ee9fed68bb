"""The search teacher: arithmetic that holds, solutions that solve, and flaws at the rates that are asked for."""

from itertools import pairwise
from random import Random

import pytest

from flowtracer.errors import InputError
from flowtracer.tasks import Countdown, WorkedTask
from flowtracer.tasks.countdown_search import LARGEST, Flaws, draw_attempt, search, solutions

TASK = Countdown(brief=True)


def draw(rng, numbers=3):
    given = [rng.randint(1, 20) for _ in range(numbers)]
    solution = draw_attempt(given, rng)
    return given, solution, TASK.pose(given, solution.value, solution.expression)


def responses(n, **options):
    rng = Random(7)
    for _ in range(n):
        numbers, solution, problem = draw(rng)
        if problem is not None:
            yield problem, search(numbers, solution.value, solution, rng, **options)


def test_every_equation_holds_and_chains():
    for problem, worked in responses(300, dead_ends=5, aim=4):
        for step in worked.steps:
            *equations, _ = worked.text[step.span.start : step.span.stop].rstrip().split(", ")
            results = [equation.split("=") for equation in equations]
            for left, right in results:
                assert TASK.verify(_target(int(right)), f"<answer>{left}</answer>").reason != "not_arithmetic"
                assert _value(left) == int(right)
                assert 0 <= int(right) <= LARGEST
            for (_, value), (left, _) in pairwise(results):
                assert left.startswith(value)
        assert TASK.verify(problem, worked.text).correct


def _target(value):
    return TASK.pose([1000], value, str(value))


def _value(equation):
    operation = next(symbol for symbol in "+-*/" if symbol in equation)
    a, b = map(int, equation.split(operation))
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[operation]


def test_a_perfect_teacher_declares_one_line_and_repeats_none():
    for _, worked in responses(300, dead_ends=5):
        lines = [worked.text[step.span.start : step.span.stop] for step in worked.steps]
        assert [step.needed for step in worked.steps] == [False] * (len(lines) - 1) + [True]
        assert [line.rstrip().endswith("yes") for line in lines] == [step.needed for step in worked.steps]
        assert len(set(lines)) == len(lines)


def test_dead_ends_are_evenly_many():
    counts = [len(worked.steps) - 1 for _, worked in responses(2000, dead_ends=3)]
    for number in range(4):
        assert counts.count(number) / len(counts) == pytest.approx(0.25, abs=0.04)


def test_aiming_comes_closer():
    def mean_miss(aim):
        misses = []
        for problem, worked in responses(400, dead_ends=3, aim=aim):
            for step in worked.steps:
                *_, last, word = worked.text[step.span.start : step.span.stop].rstrip().split(", ")
                if word == "no":
                    misses.append(abs(int(last.split("=")[1]) - problem.facts["target"]))
        return sum(misses) / len(misses)

    assert mean_miss(8) < 0.5 * mean_miss(1)


@pytest.mark.parametrize(
    ("flaws", "reason"),
    [
        (Flaws(give_up=1.0), "wrong_value"),
        (Flaws(false_yes=1.0, near=1000), "wrong_value"),
        (Flaws(reuse=1.0, false_yes=1.0, near=1000), "number_reused"),
    ],
)
def test_flaws_are_wrong_in_their_own_way(flaws, reason):
    verdicts = [
        TASK.verify(problem, worked.text).reason for problem, worked in responses(300, dead_ends=4, flaws=flaws)
    ]
    assert verdicts.count(reason) > len(verdicts) / 2


def test_patience_wears_out():
    ends = [len(w.steps) for _, w in responses(3000, dead_ends=9, flaws=Flaws(give_up=0.25)) if "give up" in w.text]
    assert max(ends) <= 4
    assert 1 in ends


def test_solutions_are_all_there_are():
    assert [attempt.expression for attempt in solutions([2, 3], 6)] == ["2*3", "3*2"]
    assert solutions([2, 3], 7) == []
    rng = Random(3)
    for _ in range(50):
        numbers, attempt, problem = draw(rng)
        if problem is not None:
            found = solutions(numbers, attempt.value)
            assert attempt in found
            assert all(TASK.verify(problem, f"<answer>{one.expression}</answer>").correct for one in found)


def test_the_task_writes_its_own_responses():
    task = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20)
    assert isinstance(task, WorkedTask)
    problems = task.problems("test", 40)
    for problem in problems:
        worked = task.work(problem)
        assert task.verify(problem, worked.text).correct
        assert worked == task.work(problem)
    impossible = task.pose([1, 1, 1], 50, "")
    with pytest.raises(InputError, match="expected numbers that reach 50"):
        task.work(impossible)


def test_draws_repeat():
    one, other = (list(responses(20, dead_ends=4, aim=3, flaws=Flaws(give_up=0.2))) for _ in range(2))
    assert one == other
