"""`flowtracer eval` as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import InputError


@pytest.fixture
def problems(tmp_path):
    file = tmp_path / "sums.jsonl"
    lines = [{"question": f"what is {n} + 4?", "answer": f"#### {n + 4}"} for n in range(3)]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"question": "what?"}]))
    return str(file)


def invoke(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"})


def test_several_benchmarks_and_a_second_run_holds_all(model, problems, tmp_path):
    out = tmp_path / "out"
    arguments = [f"gsm8k={problems}", problems, "planted", "--model", model, "--out", out, "--limit", 2]
    arguments += ["--samples", 2, "--max-new-tokens", 6, "--workers", 1]
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    for expected in ("gsm8k", "sums", "planted", "pass@2", "skipped sums.jsonl:4: no_gold", "no_gold 1"):
        assert expected in done.output
    held = {name: (out / f"{name}.jsonl").read_text() for name in ("gsm8k", "sums", "planted")}
    assert all(len(text.splitlines()) == 4 for text in held.values())
    summary = json.loads((out / "summary.json").read_text())
    assert [(row["benchmark"], row["problems"], row["samples"]) for row in summary] == [
        ("gsm8k", 2, 2),
        ("sums", 2, 2),
        ("planted", 2, 2),
    ]
    assert json.loads((out / "options.json").read_text())["temperature"] == 0.6
    assert invoke(*arguments).exit_code == 0
    assert held == {name: (out / f"{name}.jsonl").read_text() for name in held}, "nothing is sampled twice"


def test_responses_made_elsewhere_are_graded_and_compared_with_their_labels(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    answers = [("A: 7", True), ("#### 7 apples", True), ("So 3 + 4 = 7", False), ("A: 8", False), ("A: 9", True)]
    lines = [{"question": "3 + 4?", "response": text, "gold": "#### 7", "is_correct": right} for text, right in answers]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"question": "q", "response": "A: 1"}]))
    out = tmp_path / "out"
    done = invoke("gsm8k", "--responses", file, "--out", out, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "skipped 6: no_gold" in done.output
    assert "gsm8k=PATH.jsonl" in done.output, "what it could not be joined to, without a network"
    (row,) = json.loads((out / "summary.json").read_text())
    assert (row["problems"], row["samples"], row["average"]["mean"]) == (1, 5, 0.6)
    assert row["agreement"] == {"labelled": 5, "same": 3, "only_here": 1, "only_label": 1}
    again = invoke("--responses", out / "gsm8k.jsonl", "--out", tmp_path / "again", "--workers", 1)
    assert again.exit_code == 0, again.output
    (second,) = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert second["agreement"]["same"] == second["agreement"]["labelled"] == 5


def test_responses_may_state_their_answers_in_a_way_of_their_own(tmp_path):
    file, out = tmp_path / "rollouts.jsonl", tmp_path / "out"
    texts = ["Result: 7!", "Result: 8!", "The answer is 7."]
    file.write_text("".join(json.dumps({"prompt": "3 + 4?", "response": text, "gold": "7"}) + "\n" for text in texts))
    arguments = ["gsm8k", "--responses", file, "--workers", 1, "--out"]
    assert invoke(*arguments, out, "--answer-pattern", r"Result: (\d)").exit_code == 0
    rows = [json.loads(line) for line in (out / "gsm8k.jsonl").read_text().splitlines()]
    assert [(row["answer"], row["reason"]) for row in rows] == [
        ("7", "correct"), ("8", "wrong_value"), (None, "no_answer"),
    ]  # fmt: skip
    assert "answer_pattern" in str(invoke(*arguments, out).exception), "a folder is of one pattern"
    assert invoke(*arguments, tmp_path / "usual").exit_code == 0
    assert "answer_pattern" not in (tmp_path / "usual" / "options.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["planted", "--model", "nano", "--answer-pattern", "(x)"], "whose verifier finds answers by itself"),
        ([], "expected benchmarks and --model"),
        (["planted"], "expected benchmarks and --model"),
        (
            ["planted", "--model", "nano", "--samples", "2", "--temperature", "0"],
            "expected one sample with temperature 0",
        ),
        (["planted", "--model", "nano", "--top-p", "0"], "0 < top_p <= 1"),
        (["planted", "planted", "--model", "nano"], "each benchmark once"),
        (["planted", "--responses", "none.jsonl"], "expected one benchmark out of gsm8k"),
        (["--responses", "none.jsonl"], "which is no file"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, message):
    failed = invoke(*arguments, "--out", tmp_path / "out")
    assert isinstance(failed.exception, InputError)
    assert message in str(failed.exception)


def test_a_file_without_gold_answers(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    file.write_text(
        '{"prompt": "q", "response": "A: 1"}\n{"prompt": "q", "response": "A: 1", "gold": 1, "rule": "x"}\n'
    )
    failed = invoke("--responses", file, "--out", tmp_path / "out")
    assert isinstance(failed.exception, InputError)
    assert "responses with gold answers" in str(failed.exception)
