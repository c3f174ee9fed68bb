"""Stored responses joined to a benchmark by the text of their questions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.evaluation.base import BOXED, Question
from flowtracer.evaluation.joining import by_question


def problems_of(texts):
    plain = {"options": {}, "tolerance": None, "source": ""}
    questions = [Question(text=text, gold=str(n), **plain) for n, text in enumerate(texts)]
    return [question.pose("sums", "math", BOXED) for question in questions]


texts_of_questions = st.text("abc?1 ", min_size=1).map(str.strip).filter(bool)
questions = st.lists(texts_of_questions, min_size=1, max_size=6, unique_by=lambda text: tuple(text.split()))


@given(questions, st.data())
def test_every_problem_is_found_by_its_own_statement(texts, data):
    posed = problems_of(texts)
    join = by_question(posed)
    problem = data.draw(st.sampled_from(posed))
    spaced = problem.key.replace(" ", data.draw(st.sampled_from([" ", "\n", "  \t"])))
    for prompt in (spaced, [{"role": "system", "content": "be brief"}, {"role": "user", "content": f" {spaced}\n"}]):
        found = join(prompt)
        assert (found.id, found.gold) == (problem.id, problem.gold)
        assert found.prompt[-1]["content"] == (prompt if isinstance(prompt, str) else prompt[-1]["content"])


def test_the_last_question_of_a_prompt_is_the_one_that_is_asked():
    join = by_question(problems_of(["What is 1 + 1?", "What is 2 + 2?", "2 + 2?"]))
    assert join(f"Q: What is 2 + 2?\nA: 4\nQ: What is 1 + 1?\n\n{BOXED}").gold == "0"
    assert join(f"Q: What is 1 + 1?\nA: 2\nQ: What is 2 + 2?\n\n{BOXED}").gold == "1", "not the one that is part of it"
    assert join("What is 3 + 3?") is None
    assert join([]) is None
    assert join([{"role": "user", "content": None}]) is None


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def files(tmp_path):
    asked = [{"question": f"What is {n} + 4?", "answer": f"#### {n + 4}"} for n in range(3)]
    given = [
        {"prompt": [{"role": "user", "content": f"What is  {n} + 4?\n\nThink."}], "response": f"#### {said}"}
        for n, said in ((0, 4), (0, 5), (2, 6))
    ]
    unknown = {"prompt": "What is 9 + 9?", "response": "#### 18"}
    told = {"prompt": "What is 9 + 8?", "response": "#### 17", "gold": "17"}
    return write(tmp_path / "sums.jsonl", asked), write(tmp_path / "made.jsonl", [*given, unknown, told])


@pytest.mark.parametrize("benchmark", ["gsm8k={}", "{}"])
def test_responses_without_a_gold_answer_get_that_of_their_question(files, tmp_path, benchmark):
    problems, responses = files
    out = tmp_path / "out"
    arguments = ["eval", benchmark.format(problems), "--responses", responses, "--out", str(out), "--workers", "1"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)
    assert (result["benchmark"], result["problems"]) == ("gsm8k" if "gsm8k" in benchmark else "sums", 3)
    assert result["reasons"] == {"correct": 3, "wrong_value": 1}
    assert result["skipped"] == {"no_gold": 1}
    assert "skipped 4: no_gold" in done.stderr or "made.jsonl:4" in done.stderr
    lines = [json.loads(line) for line in (out / f"{result['benchmark']}.jsonl").read_text().splitlines()]
    assert [line["sample"] for line in lines] == [0, 1, 0, 0]
    assert lines[0]["prompt"][0]["content"] == "What is  0 + 4?\n\nThink.", "as it was asked"
