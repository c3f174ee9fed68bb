"""One question from the command line to a trace."""

import json

from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import TraceError
from tiny_vlm import picture, tiny_vlm

QUESTION, RESPONSE = "Ann has 3 apples and buys 4 more. How many?", "3 + 4 = 7.\nA: 7"


def run(model, *arguments):
    return CliRunner().invoke(app, ["try", QUESTION, *map(str, arguments), "--model", model])


def test_what_carried_the_answer_is_said_and_the_page_written(model, tmp_path):
    page = tmp_path / "new" / "ann.html"
    done = run(model, RESPONSE, "--html", page, "--graph", "layered", "--capacity", "alti")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("The answer 7 draws ")
    assert "layered walks, weighed by alti" in done.output
    assert "answer 7, found by the rule “label”" in done.output
    assert "<!doctype html>" in page.read_text(encoding="utf-8").lower()


def test_json_is_one_line(model):
    done = run(model, RESPONSE, "--answer", "3", "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.output.splitlines()
    assert json.loads(line)["answer"] == "3"


def test_the_model_answers_where_no_response_is_given(model):
    done = run(model, "--max-new-tokens", "8")
    # A model of random weights states no answer, and that is said of its own eight tokens.
    assert isinstance(done.exception, TraceError), done.output
    assert done.exception.reason == "no_answer"


def test_a_picture_is_shown(tmp_path):
    vlm = tiny_vlm("llava")
    vlm.model.save_pretrained(tmp_path)
    vlm.processor.save_pretrained(tmp_path)
    picture(1).save(tmp_path / "shown.png")
    done = run(tmp_path, RESPONSE, "--image", tmp_path / "shown.png", "--html", tmp_path / "shown.html")
    assert done.exit_code == 0, done.output
    assert "leaves the prompt from the image" in done.output
    assert "img-src data:" in (tmp_path / "shown.html").read_text(encoding="utf-8")
    answered = run(tmp_path, "--image", tmp_path / "shown.png", "--max-new-tokens", "8")
    assert answered.exception.reason == "no_answer", answered.output
