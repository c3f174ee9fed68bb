"""One question from the command line to a trace."""

import json

from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.errors import TraceError

QUESTION, RESPONSE = "Ann has 3 apples and buys 4 more. How many?", "3 + 4 = 7.\nA: 7"


def run(model, *arguments):
    return CliRunner().invoke(app, ["try", QUESTION, *map(str, arguments), "--model", model])


def test_what_carried_the_answer_is_said_and_the_page_written(model, tmp_path):
    page = tmp_path / "new" / "ann.html"
    done = run(model, RESPONSE, "--html", page, "--graph", "layered", "--capacity", "alti")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("The answer 7 draws ")
    assert "alti over layers; answer 7, found by the rule “label”" in done.output
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
