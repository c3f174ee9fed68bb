"""Problems out of records of many schemas, out of files, and out of the hub where it can be reached."""

import gzip
import json
from dataclasses import replace

import pytest

from flowtracer.errors import InputError
from flowtracer.evaluation import BENCHMARKS, Benchmark
from flowtracer.evaluation.grading import RULES
from flowtracer.evaluation.loading import TASK_PROBLEMS, load_suite, read_question
from flowtracer.trace.records import BadRecord


def written(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "text", "gold"),
    [
        ({"question": "q", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}, "q", "7"),
        ({"problem": "p", "solution": r"so \boxed{9}", "answer": "7"}, "p", "7"),
        ({"problem": "p", "solution": r"so \boxed{7}"}, "p", "7"),
        ({"question": "q", "answer": 27.0}, "q", "27"),
        ({"question": "q", "answer": 0.5}, "q", "0.5"),
        ({"problem": "p", "answer": 0}, "p", "0"),
        ({"question": "q", "final_answer": ["$69$,$84$"], "solution": ["..."]}, "q", "$69$,$84$"),
        ({"question": "q", "final_answer": ["1", "2"]}, "q", "1, 2"),
        ({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "gold": "7"}, "q", "7"),
        (
            {"meta_data": {"question": "q"}, "prompt": "asked: q", "reward_model": {"ground_truth": "B"}},
            "q",
            "B",
        ),
        ({"problem": None, "question": "q", "final_answer": None, "expected_answer": "7"}, "q", "7"),
    ],
)
def test_fields_go_by_many_names(record, text, gold):
    question = read_question(record, "file:1")
    assert (question.text, question.gold, question.source) == (text, gold, "file:1")


@pytest.mark.parametrize(
    ("record", "gold"),
    [
        ({"question": "q", "choices": ["Mars", "the moon"], "answer": 1}, "B"),
        ({"question": "q", "choices": ["Mars", "the moon"], "answer": "the moon"}, "B"),
        ({"question": "q", "options": ["A) Mars", "B) the moon"], "answer": "B"}, "B"),
        ({"question": "q", "options": {"A": "Mars", "B": "the moon"}, "answer": "B"}, "B"),
        ({"question": "q", "choices": {"text": ["Mars", "the moon"], "label": ["A", "B"]}, "answerKey": "B"}, "B"),
    ],
)
def test_choices(record, gold):
    question = read_question(record, "file:1")
    assert question.gold == gold
    assert question.statement == "q\nA. Mars\nB. the moon"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([1], "not_an_object"),
        ({}, "no_question"),
        ({"question": " ", "answer": "1"}, "no_question"),
        ({"question": 3, "answer": "1"}, "no_question"),
        ({"question": "half \ud800", "answer": "1"}, "no_question"),
        ({"question": "q"}, "no_gold"),
        ({"question": "q", "answer": " "}, "no_gold"),
        ({"question": "q", "answer": True}, "no_gold"),
        ({"question": "q", "answer": []}, "no_gold"),
        ({"question": "q", "choices": ["a"], "answer": 3}, "no_gold"),
        (BadRecord("broken_json", "x"), "broken_json"),
    ],
)
def test_what_is_no_problem_has_a_named_reason(record, reason):
    with pytest.raises(BadRecord) as caught:
        read_question(record, "file:1")
    assert caught.value.skipped("file:1").reason == reason


def test_a_file_with_bad_lines(tmp_path):
    path = written(
        tmp_path / "mine.jsonl", {"problem": "p", "answer": 1}, {"problem": "p"}, {"problem": "p", "answer": 1}
    )
    path.write_text(path.read_text() + "{\n" + json.dumps({"problem": "r", "answer": 2, "id": 60, "error": "1e-1"}))
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert [(item.id, item.reason) for item in suite.skipped] == [
        ("mine.jsonl:2", "no_gold"),
        ("mine.jsonl:3", "duplicate"),
        ("mine.jsonl:4", "broken_json"),
    ]
    first, last = suite.problems
    assert first.prompt[0]["content"].startswith("p\n\nPlease reason")
    assert first.facts["rule"] == "math"
    assert (last.facts["source"], last.facts["tolerance"]) == ("60", 0.1)
    assert [problem.id for problem in load_suite(str(path), limit=1).problems] == [first.id]


def test_a_benchmark_out_of_a_file_keeps_its_rule(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"question": "q", "answer": "#### 7"}).encode()))
    suite = load_suite(f"gsm8k={path}", instruction="Say it.")
    assert suite.name == "gsm8k"
    assert suite.problems[0].facts["rule"] == "number"
    assert suite.problems[0].prompt[0]["content"] == "q\n\nSay it."


def test_choices_are_asked_for_by_letter(tmp_path):
    suite = load_suite(str(written(tmp_path / "quiz.jsonl", {"question": "q", "choices": ["x", "y"], "answer": "A"})))
    assert suite.problems[0].facts["rule"] == "choice"
    assert "A. x\nB. y\n\n" in suite.problems[0].prompt[0]["content"]
    assert "letter" in suite.problems[0].prompt[0]["content"]


def test_tasks_take_options():
    suite = load_suite("planted:chains=2,length=2", limit=3)
    assert suite.name == "planted:chains=2,length=2"
    assert len(suite.problems) == 3
    assert all(len(problem.facts["chains"]) == 2 for problem in suite.problems)
    assert len(load_suite("planted").problems) == TASK_PROBLEMS


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("aime26", r"expected a benchmark \(gsm8k, .*task \(countdown, .*got 'aime26'"),
        ("none/here.jsonl", "got 'none/here.jsonl', which is no file"),
        ("gsm8k=none.jsonl", "which is no file"),
        ("planted:depth=2", "options of task 'planted' out of chains, length, got depth"),
        ("forks:place=nowhere", "expected a place among early, middle, late, scattered, got 'nowhere'"),
        ("planted:chains", "such as key=3, key=true or key=word, got 'chains'"),
        ("planted:chains=two", "got 'chains=two'"),
    ],
)
def test_mistakes_are_named(asked, message):
    with pytest.raises(InputError, match=message):
        load_suite(asked)


def test_a_file_without_problems(tmp_path):
    path = written(tmp_path / "none.jsonl", {"text": "hello"})
    with pytest.raises(InputError, match=r"at least one problem .* the first: expected text in one of the fields"):
        load_suite(str(path))


def test_a_hub_that_cannot_be_reached_names_the_way_by_a_file():
    with pytest.raises(InputError, match=r"'math-ai/aime25' .* pass a local file of the same records: aime25=PATH"):
        load_suite("aime25")


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """`datasets` loads a folder as it loads the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data_set"
    folder.mkdir()

    def registered(rows, **options):
        written(folder / "test.jsonl", *rows)
        monkeypatch.setitem(BENCHMARKS, "ours", Benchmark(hub=str(folder), split="test", rule="math", **options))

    return registered


def test_rows_of_a_data_set_are_read_as_those_of_files(data_set, tmp_path):
    data_set([{"problem": f"p{n}", "answer": str(n)} for n in range(3)])
    of_data_set, of_file = (
        load_suite("ours", limit=2),
        load_suite(f"ours={tmp_path / 'data_set' / 'test.jsonl'}", limit=2),
    )
    assert [problem.gold for problem in of_data_set.problems] == ["0", "1"]
    assert [problem.id for problem in of_data_set.problems] == [problem.id for problem in of_file.problems]


def test_a_large_set_is_drawn_whatever_the_order_of_its_rows(data_set):
    rows = [{"meta_data": {"question": f"q{n}"}, "reward_model": {"ground_truth": "A"}} for n in range(30)]
    drawn = []
    for order in (rows, rows[::-1]):
        data_set(order, drawn=10)
        drawn.append([problem.id for problem in load_suite("ours").problems])
    assert len(drawn[0]) == 10
    assert drawn[0] == drawn[1]


def test_a_split_that_is_not_there(data_set, monkeypatch):
    data_set([{"problem": "p", "answer": "1"}])
    monkeypatch.setitem(BENCHMARKS, "ours", replace(BENCHMARKS["ours"], split="dev"))
    with pytest.raises(InputError, match="split 'dev'"):
        load_suite("ours")


def test_every_benchmark_has_a_rule():
    assert {benchmark.rule for benchmark in BENCHMARKS.values()} <= set(RULES)
