"""The folder of graded responses: it goes on after a kill to the same result, and grows."""

import json

import pytest

from flowtracer.errors import InputError
from flowtracer.evaluation.folder import EvaluationFolder, by_model, draws_of
from flowtracer.evaluation.loading import load_suite
from flowtracer.evaluation.pool import GradingPool
from flowtracer.model.generate import Reply, Sampling
from flowtracer.model.load import load_model
from flowtracer.tasks import Problem, Verdict
from flowtracer.trace.records import read_rollouts
from flowtracer.trace.trace import Rollout


@pytest.fixture(scope="module")
def nano():
    return load_model("nano")


@pytest.fixture(scope="module")
def pool():
    with GradingPool(limit=60.0) as pool:
        yield pool


def run(folder, suite, respond, pool, samples):
    draws = draws_of(suite, samples)
    counts = list(folder.run(suite, respond, pool, draws=draws))
    assert sum(counts) == len(draws)
    return folder.result(suite, draws)


def lines_of(path):
    return sorted(path.read_text(encoding="utf-8").splitlines())


def test_a_killed_run_goes_on_to_the_same_result(nano, pool, tmp_path):
    suite = load_suite("planted:length=2", limit=8)
    respond = by_model(*nano, Sampling(temperature=1.5, top_p=0.9, max_new_tokens=60), batch_size=5)
    whole = run(EvaluationFolder(tmp_path / "whole", {}), suite, respond, pool, 2)
    part = EvaluationFolder(tmp_path / "part", {})
    steps = part.run(suite, respond, pool, draws=draws_of(suite, 2))
    assert [next(steps), next(steps)] == [0, 5]
    steps.close()
    (file,) = (tmp_path / "part").glob("planted*[!d].jsonl")
    file.write_bytes(file.read_bytes()[:-30])
    again = EvaluationFolder(tmp_path / "part", {})
    held, *rest = again.run(
        suite,
        by_model(*nano, Sampling(temperature=1.5, top_p=0.9, max_new_tokens=60), batch_size=3),
        pool,
        draws=draws_of(suite, 2),
    )
    assert (held, sum(rest)) == (4, 12)
    assert lines_of(file) == lines_of(tmp_path / "whole" / file.name)
    assert again.result(suite, draws_of(suite, 2)) == whole
    assert whole.samples == 2


def test_more_problems_and_more_samples_add_lines_and_change_none(nano, pool, tmp_path):
    folder = EvaluationFolder(tmp_path, {})
    respond = by_model(*nano, Sampling(temperature=1.5, max_new_tokens=60), batch_size=8)
    small = run(folder, load_suite("planted", limit=3), respond, pool, 1)
    before = lines_of(tmp_path / "planted.jsonl")
    large = run(folder, load_suite("planted", limit=5), respond, pool, 2)
    after = lines_of(tmp_path / "planted.jsonl")
    assert (len(before), len(after)) == (3, 10)
    assert set(before) < set(after)
    assert (small.problems, large.problems, large.samples) == (3, 5, 2)
    assert run(folder, load_suite("planted", limit=3), respond, pool, 1) == small


def test_verdicts_of_a_task_are_the_tasks(nano, pool, tmp_path):
    suite = load_suite("planted:length=2", limit=6)
    result = run(
        EvaluationFolder(tmp_path, {}), suite, by_model(*nano, Sampling(max_new_tokens=60), batch_size=6), pool, 1
    )
    (file,) = tmp_path.glob("planted*[!d].jsonl")
    problems = {problem.id: problem for problem in suite.problems}
    for line in map(json.loads, file.read_text().splitlines()):
        verdict = suite.task.verify(problems[line["id"]], line["response"])
        assert isinstance(verdict, Verdict)
        assert isinstance(problems[line["id"]], Problem)
        assert (line["is_correct"], line["reason"]) == (verdict.correct, str(verdict.reason))
    assert result.average.mean == result.passes["1"].mean


def test_lines_are_rollouts(pool, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"problem": "p", "answer": "7", "error": 0.5}\n{"problem": "r"}\n')
    suite = load_suite(str(tmp_path / "in.jsonl"))

    def respond(draws):
        yield {place: Reply(text=r"So \boxed{7.4}", tokens=4, finished=True) for place in range(len(draws))}

    out = tmp_path / "out"
    result = run(EvaluationFolder(out, {}), suite, respond, pool, 1)
    (rollout,) = read_rollouts(out / "in.jsonl")
    assert isinstance(rollout, Rollout)
    assert rollout.response == r"So \boxed{7.4}"
    assert rollout.prompt[0]["content"].startswith("p\n\n")
    known = {"gold": "7", "is_correct": True, "rule": "math", "tolerance": 0.5, "answer": "7.4", "found": "boxed"}
    assert known.items() <= rollout.metadata.items()
    assert json.loads((out / "in.skipped.jsonl").read_text())["reason"] == "no_gold"
    assert result.skipped == {"no_gold": 1}


def test_other_options_need_another_folder(tmp_path):
    EvaluationFolder(tmp_path, {"temperature": 0})
    with pytest.raises(InputError, match="another temperature"):
        EvaluationFolder(tmp_path, {"temperature": 1})
