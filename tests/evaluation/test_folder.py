"""The folder of graded responses: it goes on after a kill to the same result, and grows."""

import json

import pytest

from flowtracer.errors import FormatError, InputError
from flowtracer.evaluation.folder import EvaluationFolder, by_model, draws_of
from flowtracer.evaluation.loading import load_suite
from flowtracer.evaluation.pool import GradingPool
from flowtracer.evaluation.responses import as_given, load_responses
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


def grade(out, file, answers, pool, **fields):
    """The shares of right responses that the folder reports of a file of these, and how many it graded anew."""
    lines = [{"question": "3 + 4?", "response": f"A: {answer}", "gold": 7, **fields} for answer in answers]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given, folder = load_responses(file, name="sums"), EvaluationFolder(out, {"responses": str(file)})
    held, *fresh = folder.run(given.suite, as_given, pool, draws=given.draws)
    assert held + sum(fresh) == len(answers)
    return folder.result(given.suite, given.draws).average.mean, sum(fresh)


def test_responses_made_elsewhere_are_known_by_what_they_say(pool, tmp_path):
    out, file = tmp_path / "out", tmp_path / "responses.jsonl"
    assert grade(out, file, [7, 7, 8, 9], pool) == (0.5, 4)
    assert grade(out, file, [9, 7, 8, 7], pool) == (0.5, 0), "another order"
    assert grade(out, file, [1, 7, 2, 7], pool) == (0.5, 2), "written anew under the same name"
    assert grade(out, file, [7, 7, 7], pool) == (1.0, 1), "lines that are not asked for do not count"
    assert grade(out, file, [7, 7], pool, tolerance=0.5) == (1.0, 2), "another rule of grading"


def test_another_model_of_the_same_name_answers_anew(pool, tmp_path):
    suite, asked = load_suite("planted", limit=2), []

    def respond(draws):
        asked.extend(draws)
        yield {place: Reply(text="A: 1", tokens=3, finished=True) for place in range(len(draws))}

    for model, expected in (("before", 2), ("before", 2), ("after", 4)):
        run(EvaluationFolder(tmp_path, {}, model=model), suite, respond, pool, 1)
        assert len(asked) == expected


def test_lines_that_two_processes_wrote_are_refused(pool, tmp_path):
    out, file = tmp_path / "out", tmp_path / "responses.jsonl"
    grade(out, file, [7, 8], pool)
    lines = out / "sums.jsonl"
    lines.write_text(lines.read_text() * 2)
    with pytest.raises(FormatError, match="each key once"):
        grade(out, file, [7, 8], pool)


def test_other_options_need_another_folder(tmp_path):
    EvaluationFolder(tmp_path, {"temperature": 0})
    with pytest.raises(InputError, match="temperature 1 instead of 0"):
        EvaluationFolder(tmp_path, {"temperature": 1})
