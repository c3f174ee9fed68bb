"""What holds for every task: disjoint and repeatable splits, self-validation, rewards, and a light import."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.tasks import TASKS, Problem, Reason, Task, Verdict, base, reward, split_of, validate

SPLITS = ("train", "validation", "test")
# Small targets, because reasoning-gym draws from them several times faster.
EASY = {"countdown": {"max_value": 20, "min_target": 1}, "forks": {}, "gsm_symbolic": {}, "planted": {}}
DRAWN = {"countdown": 150, "forks": 1500, "gsm_symbolic": 1500, "planted": 1500}


@pytest.fixture(scope="module", params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param](**EASY[request.param])


@pytest.fixture(scope="module")
def drawn(task: Task) -> dict[tuple[str, int], list[Problem]]:
    n = DRAWN[task.name]
    return {(split, seed): task.problems(split, n, seed=seed) for split in SPLITS for seed in (42, 43)}


def test_registry_names_and_defaults():
    assert sorted(TASKS) == ["countdown", "forks", "gsm_symbolic", "planted"]
    for name, make in TASKS.items():
        assert isinstance(make(), Task)
        assert make().name == name


def test_splits_share_no_problem_whatever_the_seeds(task, drawn):
    keys = {split: {p.key for seed in (42, 43) for p in drawn[split, seed]} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not keys[one] & keys[other]
    for (split, _), problems in drawn.items():
        assert len(problems) == DRAWN[task.name] == len({p.key for p in problems})
        assert {split_of(p.key) for p in problems} == {split}
        assert all(p.id.startswith(f"{task.name}/{split}/") for p in problems)


def test_neighbouring_seeds_are_different_streams(drawn):
    for split in SPLITS:
        one, other = ({p.key for p in drawn[split, seed]} for seed in (42, 43))
        assert len(one & other) < 0.2 * len(one)


def test_one_statement_has_one_id_and_one_gold(drawn):
    seen: dict[str, tuple[str, str]] = {}
    for problem in (p for problems in drawn.values() for p in problems):
        said = (problem.prompt[0]["content"], str(problem.facts))
        assert seen.setdefault(problem.id, said) == said


def test_generation_is_repeatable_and_prefix_stable(task, drawn):
    assert task.problems("test", 20, seed=42) == drawn["test", 42][:20]


def test_problems_are_json_and_rows(task, drawn):
    for problem in drawn["validation", 42]:
        assert json.loads(json.dumps(dict(problem.facts))) == problem.facts
        assert problem.row() == {"prompt": problem.prompt, "problem_id": problem.id, "gold": problem.gold}
        assert [message["role"] for message in problem.prompt] == ["user"]
        assert ("<answer>" in problem.prompt[0]["content"]) == (task.name not in ("planted", "forks"))


def test_every_gold_is_accepted(task, drawn):
    for problem in (p for problems in drawn.values() for p in problems):
        verdict = task.verify(problem, f"I think so.\n<answer>{problem.gold}</answer>")
        assert verdict.reason == "correct", problem


def test_no_gold_solves_the_next_problem_unless_it_is_its_gold(task, drawn):
    for this, following in pairwise(drawn["train", 42]):
        if this.gold != following.gold:
            assert not task.verify(following, f"<answer>{this.gold}</answer>").correct


def test_tasks_validate_themselves(task):
    validate(task, n=10)


@pytest.mark.parametrize("broken", [Reason.CORRECT, Reason.WRONG_VALUE])
def test_validate_names_the_problem_of_a_broken_task(broken):
    class Broken:
        name = "broken"

        def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
            return [base.pose("broken", key="k", question="1 + 1?", form="it", gold="2", facts={})]

        def verify(self, problem: Problem, response: str) -> Verdict:
            return Verdict(reason=broken)

        def wrong_answers(self, problem: Problem) -> list[str]:
            return ["3"]

    with pytest.raises(InputError, match=r"^broken/\w+/[0-9a-f]{16}: expected"):
        validate(Broken())


def test_no_answer_is_named(task, drawn):
    problem = drawn["train", 42][0]
    for response in ("", "hm", f"It must be {problem.gold}?", "<answer></answer>", "<answer> \n</answer>"):
        assert task.verify(problem, response) == Verdict(reason=Reason.NO_ANSWER), response


HOSTILE = [
    *["(" * 1_000_000, "1" * 1_000_000, "-" * 499, "(" * 499, r"\frac{" * 80, "{" * 400],
    *["9**9**9", "__import__('os').abort()"],
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: text[:12])
def test_hostile_answers_are_refused(task, drawn, hostile):
    verdict = task.verify(drawn["train", 42][0], f"<answer>{hostile}</answer>")
    assert not verdict.correct
    assert not verdict.well_formed
    if len(hostile) > base.MAX_LENGTH:
        assert verdict.reason is Reason.TOO_LONG


def test_unknown_split_and_negative_count(task):
    with pytest.raises(InputError, match=r"\['test', 'train', 'validation'\], got 'dev'"):
        task.problems("dev", 1)
    with pytest.raises(InputError, match="got -1"):
        task.problems("test", -1)
    assert task.problems("test", 0) == []


def test_an_exhausted_stream_says_how_far_it_came():
    task = TASKS["countdown"](min_numbers=2, max_numbers=2, max_value=3, min_target=1, max_target=9)
    with pytest.raises(InputError, match=r"expected 100 distinct train problems, got \d+ before"):
        task.problems("train", 100)


@pytest.mark.parametrize(
    ("reason", "plain", "shaped"),
    [
        (Reason.CORRECT, 1.0, 1.0),
        (Reason.WRONG_VALUE, 0.0, 0.1),
        (Reason.NUMBER_REUSED, 0.0, 0.1),
        (Reason.NOT_ARITHMETIC, 0.0, 0.0),
        (Reason.NO_ANSWER, 0.0, 0.0),
        (Reason.TOO_LONG, 0.0, 0.0),
    ],
)
def test_reward(reason, plain, shaped):
    assert reward(Verdict(reason=reason)) == plain
    assert reward(Verdict(reason=reason), format_reward=0.1) == shaped


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_wrong_answer_never_pays_like_a_right_one(share):
    with pytest.raises(InputError, match="format_reward"):
        reward(Verdict(reason=Reason.CORRECT), format_reward=share)


def test_reasons_print_as_their_value():
    assert f"{Reason.NO_ANSWER}" == str(Reason.NO_ANSWER) == "no_answer"


def test_split_shares():
    splits = [split_of(str(i)) for i in range(4000)]
    for split, share in {"train": 0.5, "validation": 0.25, "test": 0.25}.items():
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.03)


def test_take_drops_failed_draws_and_repeats(drawn):
    problems = drawn["train", 42][:3]
    again = replace(problems[0], id="another wording")
    assert base.take(iter([None, problems[0], again, None, *problems[1:]]), "train", 3) == problems


@pytest.mark.parametrize("name", ["countdown", "gsm_symbolic"])
def test_without_reasoning_gym_the_error_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "flowtracer\[train\]"'):
        TASKS[name]().problems("test", 1)


def test_import_is_light():
    code = "import sys, flowtracer.tasks; print({'torch', 'reasoning_gym', 'sympy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
