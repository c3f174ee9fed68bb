"""The commands as a user types them, in a process of their own or through typer's runner."""

import json
import os
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.cli.options import parse_layers
from flowtracer.errors import FormatError, InputError
from flowtracer.folders import lock
from flowtracer.trace.trace import load_trace
from synthetic import RIGHT, WRONG, synthetic_trace
from traces import make_trace

PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys 4 more. How many?"}]


@pytest.fixture
def rollouts(tmp_path):
    file = tmp_path / "rollouts.jsonl"
    lines = [
        json.dumps(
            {
                "prompt": PROMPT,
                "response": f"3 + {n} = {3 + n}.\nA: {3 + n}",
                "id": f"r{n}",
                "is_correct": n == 4,
            }
        )
        for n in range(4, 8)
    ]
    bad = [
        json.dumps({"prompt": PROMPT, "response": "no idea", "id": "miss"}),
        '{"broken',
        json.dumps({"a": 1}),
    ]
    file.write_text("\n".join(lines + bad))
    return file


def flowtracer(*arguments):
    """Run the command; its output may be wrapped anywhere, so white space is folded."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from flowtracer.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    return done.returncode, re.sub(r"\s+", " ", done.stdout), re.sub(r"\s+", " ", done.stderr)


def test_trace_by_another_capacity_and_over_layers(model, rollouts, tmp_path):
    out, runner = tmp_path / "out", CliRunner()
    arguments = ["trace", str(rollouts), "--model", model, "--out", str(out), "--limit", "2"]
    done = runner.invoke(app, [*arguments, "--capacity", "alti", "--graph", "layered", "--html"])
    assert done.exit_code == 0, done.output
    file, *_ = sorted((out / "traces").iterdir())
    trace = load_trace(file)
    assert (trace.capacity, trace.graph, trace.ends, trace.at) == ("alti", "layered", "anywhere", "prediction")
    assert trace.conservation_error() < 1e-9
    again = runner.invoke(app, [*arguments, "--capacity", "alti", "--graph", "layered"])
    assert "all held already" in again.output
    other = runner.invoke(app, [*arguments, "--capacity", "value", "--graph", "layered"])
    assert other.exit_code != 0, "a folder is of one capacity"
    unknown = runner.invoke(app, [*arguments, "--capacity", "colour"])
    assert "capacity among" in str(unknown.exception)


def test_trace_a_file(model, rollouts, tmp_path):
    out = tmp_path / "out"
    code, printed, errors = flowtracer("trace", rollouts, "--model", model, "--out", out, "--html", "--effects", "all")
    assert code == 0, errors
    for expected in (
        "rollouts 7",
        "traced 4 (57%)",
        "skipped: no_answer 1",
        "skipped: broken_json 1",
        "through hubs (right)",
    ):
        assert expected in printed
    assert "rollouts.jsonl:6" in printed, "a bad line is named"
    assert "Traceback" not in printed + errors
    files = sorted((out / "traces").iterdir())
    assert len(files) == 4
    first = load_trace(files[0])
    assert first.metadata["id"] == "r4"
    assert set(first.effects) == set(range(first.response.start, first.answer.start))
    assert set(pq.read_table(out / "tokens.parquet")["trace"].to_pylist()) == {file.stem for file in files}
    assert json.loads((out / "summary.json").read_text())["traced"] == 4
    assert len((out / "skipped.jsonl").read_text().splitlines()) == 3
    assert (out / "index.html").is_file()
    assert {file.stem for file in (out / "pages").iterdir()} == {file.stem for file in files}


def assert_summaries_are_alike(one, other):
    """Rollouts that ran in other batches are rounded otherwise."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
    if isinstance(one, (dict, list)):
        assert len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_summaries_are_alike(one[key], other[key])
    else:
        assert one == (other if isinstance(one, str) else pytest.approx(other, rel=1e-5, abs=1e-9))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_killed_run_goes_on_and_ends_the_same(model, rollouts, tmp_path):
    runner = CliRunner()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = ["trace", str(rollouts), "--model", model, "--out"]
    assert runner.invoke(app, [*arguments, str(whole)]).exit_code == 0
    assert runner.invoke(app, [*arguments, str(parts), "--limit", "2"]).exit_code == 0
    kept = {file.name: file.stat().st_mtime_ns for file in (parts / "traces").iterdir()}
    assert len(kept) == 2
    assert runner.invoke(app, [*arguments, str(parts)]).exit_code == 0
    again = {file.name: file.stat().st_mtime_ns for file in (parts / "traces").iterdir()}
    assert len(again) == 4
    assert kept.items() <= again.items(), "held traces are not computed again"
    assert_summaries_are_alike(summary_of(whole), summary_of(parts))


def test_other_options_into_the_same_folder_are_refused(model, rollouts, tmp_path):
    runner = CliRunner()
    arguments = ["trace", str(rollouts), "--model", model, "--out", str(tmp_path / "out")]
    assert runner.invoke(app, arguments).exit_code == 0
    refused = runner.invoke(app, [*arguments, "--at", "prediction"])
    assert isinstance(refused.exception, InputError)
    assert 'got at "prediction" instead of "token"' in str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "none.jsonl", "--model", "MODEL", "--out", "OUT"], "expected a file of rollouts"),
        (["trace", "ROLLOUTS", "--model", "no/such/model", "--out", "OUT"], "expected a hub id, a folder"),
        (
            ["trace", "ROLLOUTS", "--model", "MODEL", "--out", "ROLLOUTS"],
            "expected a folder that can be written",
        ),
        (
            ["trace", "ROLLOUTS", "--model", "MODEL", "--out", "OUT", "--layers", "90"],
            "expected layers among",
        ),
        (["trace", "ROLLOUTS", "--model", "MODEL", "--out", "OUT", "--at", "end"], "expected at among"),
        (
            ["trace", "ROLLOUTS", "--model", "MODEL", "--out", "OUT", "--dtype", "int7"],
            "expected dtype float32",
        ),
        (["explain", "none.safetensors"], "expected a trace or a folder of traces"),
        (["explain", "MODEL/tokenizer.json"], "expected a trace written by Trace.save"),
        (["compare", "EMPTY"], "got none; write them with `flowtracer trace`"),
        (["train", "none.toml"], "expected a TOML run file"),
        (["doctor", "--model", "none.gguf"], "does not exist"),
    ],
)
def test_a_users_mistake_ends_with_2_and_says_what_to_do(model, rollouts, tmp_path, arguments, message):
    places = {"MODEL": model, "OUT": str(tmp_path / "out"), "ROLLOUTS": str(rollouts), "EMPTY": str(tmp_path)}
    code, _, errors = flowtracer(*[re.sub("[A-Z]+", lambda m: places.get(m[0], m[0]), a) for a in arguments])
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors


@pytest.fixture
def traces(tmp_path):
    folder = tmp_path / "made" / "traces"
    folder.mkdir(parents=True)
    for name, response in (("a", RIGHT), ("b", WRONG), ("c", RIGHT[:9])):
        synthetic_trace(response, metadata={"id": name}).save(folder / f"{name}.safetensors")
    return folder


@pytest.mark.parametrize("command", ["trace", "mask", "eval"])
def test_a_mistake_leaves_no_mark_on_the_folder(command, model, rollouts, tmp_path):
    runner, out = CliRunner(), tmp_path / "out"
    first, *rest = {
        "trace": ["trace", str(rollouts), "--layers", "0"],
        "mask": ["mask", str(rollouts), "--shares", "0.2", "--limit", "1"],
        "eval": ["eval", "planted", "--limit", "1", "--max-new-tokens", "4", "--workers", "1"],
    }[command]
    failed = runner.invoke(app, [first, *rest, "--out", str(out), "--model", "no/such/model"])
    assert isinstance(failed.exception, InputError)
    assert runner.invoke(app, [first, *rest, "--out", str(out), "--model", model]).exit_code == 0


@pytest.mark.parametrize("command", ["trace", "mask", "eval", "eval --responses", "page"])
def test_a_second_process_in_a_folder_is_refused(command, model, rollouts, traces, tmp_path):
    out = tmp_path / "out"
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question": "3 + 4?", "response": "A: 7", "gold": 7}\n')
    arguments = {
        "trace": ["trace", rollouts, "--model", model],
        "mask": ["mask", rollouts, "--model", model],
        "eval": ["eval", "planted", "--limit", "1", "--model", model],
        "eval --responses": ["eval", "--responses", answers, "--workers", "1"],
        "page": ["page", traces],
    }[command]
    with lock(out):
        refused = CliRunner().invoke(app, [*map(str, arguments), "--out", str(out)])
        assert isinstance(refused.exception, InputError)
        assert f"held by process {os.getpid()}; wait until it is done" in str(refused.exception)
        assert {file.name for file in out.iterdir()} == {".lock", ".lock.pid"}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, r"(?<!about )\b\d+ tokens in 3 rollouts, the longest of \d"),
        (130, r"about [\d,]+ tokens in 130 rollouts, the longest of some \d"),
    ],
)
def test_a_long_run_says_first_what_lies_ahead(model, tmp_path, monkeypatch, count, expected):
    file = tmp_path / "rollouts.jsonl"
    line = json.dumps({"prompt": PROMPT, "response": "3 + 4 = 7.\nA: 7"}) + "\n"
    file.write_text(line * count)
    monkeypatch.setattr(sys.modules["flowtracer.cli.trace"], "LONG_RUN", 20)
    arguments = ["trace", str(file), "--model", model, "--layers", "0", "--show", "0", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert re.search(expected, re.sub(r"\s+", " ", done.output))


def test_a_damaged_trace_is_named_and_traced_again(model, rollouts, tmp_path):
    out = tmp_path / "out"
    arguments = ["trace", rollouts, "--model", model, "--out", out]
    assert flowtracer(*arguments)[0] == 0
    summary = summary_of(out)
    file = sorted((out / "traces").iterdir())[2]
    file.write_bytes(file.read_bytes()[:-5])
    code, printed, errors = flowtracer(*arguments)
    assert code == 0, errors
    assert f"damaged {file.name}" in printed
    assert "damaged 1, traced again" in printed
    assert_summaries_are_alike(summary_of(out), summary)


@pytest.mark.parametrize(
    "command", [["explain", "--json"], ["page", "--out", "OUT"], ["compare", "--json"], ["plot", "--out", "OUT"]]
)
def test_a_bad_file_among_others_is_named_and_left_out(command, traces, tmp_path):
    bad = traces / "bad.safetensors"
    bad.write_bytes((traces / "a.safetensors").read_bytes()[:-1])
    name, *options = [str(tmp_path / "out") if argument == "OUT" else argument for argument in command]
    if name == "plot":
        options += ["--format", "svg", "--figure", "layers"]
    runner = CliRunner()
    done = runner.invoke(app, [name, str(traces), *options])
    assert done.exit_code == 0, done.output
    assert "skipped bad.safetensors: expected a trace" in re.sub(r"\s+", " ", done.stderr)
    if "--json" in options:
        content = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(content[0]["traces"] if name == "compare" else content) == 3
    alone = runner.invoke(app, [name, str(bad), *options])
    assert isinstance(alone.exception, FormatError)
    for file in traces.iterdir():
        file.write_bytes(bad.read_bytes())
    none = runner.invoke(app, [name, str(traces), *options])
    assert isinstance(none.exception, FormatError)
    assert "at least one trace that can be read, got none of 4" in str(none.exception)


def test_explain(traces):
    result = CliRunner().invoke(app, ["explain", str(traces / "a.safetensors")])
    assert result.exit_code == 0
    assert result.output.startswith("a: The answer 7 draws")
    result = CliRunner().invoke(app, ["explain", str(traces.parent), "--json", "--hubs", "2"])
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert len(lines[0]["hubs"]) == 2


def test_compare(traces):
    two = [str(traces / "a.safetensors"), str(traces / "b.safetensors")]
    result = CliRunner().invoke(app, ["compare", *two], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "part at “+” against “*”" in result.output
    content = json.loads(CliRunner().invoke(app, ["compare", *two, "--json", "--hubs", "2"]).output)
    assert content["divergence"]["token"] == 12
    assert len(content["hubs_kept"]) + len(content["hubs_lost"]) == 2
    group = json.loads(CliRunner().invoke(app, ["compare", str(traces), "--json"]).output)
    assert [trace["id"] for trace in group["traces"]] == ["a", "b", "c"]
    assert "3 responses" in CliRunner().invoke(app, ["compare", str(traces)]).output


def test_plot(traces, tmp_path):
    out = tmp_path / "figures"
    options = ["--out", str(out), "--format", "svg", "--figure", "steps", "--figure", "layers", "--each"]
    result = CliRunner().invoke(app, ["plot", str(traces), *options])
    assert result.exit_code == 0, result.output
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    folders = ("", "a/", "b/", "c/")
    assert made == sorted(f"{folder}{name}.svg" for folder in folders for name in ("steps", "layers"))
    for step in ("step-000000", "step-000010"):
        (traces / step).mkdir()
        synthetic_trace().save(traces / step / "prompt-00-r00.safetensors")
    options = ["--out", str(tmp_path / "steps"), "--format", "svg", "--figure", "steps", "--each"]
    assert CliRunner().invoke(app, ["plot", str(traces), *options]).exit_code == 0
    assert (tmp_path / "steps" / "step-000010-prompt-00-r00" / "steps.svg").exists()
    refused = CliRunner().invoke(app, ["plot", str(traces), "--out", str(out), "--figure", "pie"])
    assert "a figure among" in str(refused.exception)


def test_unknown_command_ends_with_2():
    assert flowtracer("trance")[0] == 2


def test_doctor(model):
    code, printed, _ = flowtracer("doctor", "--model", model)
    assert code == 0
    assert "sdpa, read and reproduced" in printed
    assert "transformers" in printed
    assert f'flowtracer try "QUESTION" "RESPONSE" --model {model}' in printed
    code, printed, _ = flowtracer("doctor", "--json")
    assert code == 0
    assert json.loads(printed)["next"]["can a model be traced"] == "flowtracer doctor --model NAME"


@pytest.mark.parametrize(
    "command",
    [[], ["trace"], ["page"], ["explain"], ["compare"], ["plot"], ["faithfulness"], ["meter"], ["train"], ["doctor"]],
)
def test_help_fits_a_screen(command):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    assert len(result.output.splitlines()) <= 45


@pytest.mark.parametrize(("text", "layers"), [("3", [3]), ("1-3", [1, 2, 3]), ("0, 2-3", [0, 2, 3])])
def test_layers(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "a", "1-", "1--2", "-1", "1,,2"])
def test_bad_layers(text):
    with pytest.raises(InputError, match="expected layers such as"):
        parse_layers(text)


def test_pages_of_saved_traces(tmp_path):
    runner = CliRunner()
    make_trace().save(tmp_path / "a.safetensors")
    one = tmp_path / "one.html"
    assert runner.invoke(app, ["page", str(tmp_path / "a.safetensors"), "--out", str(one)]).exit_code == 0
    assert "The answer 3" in one.read_text(encoding="utf-8")
    assert runner.invoke(app, ["page", str(tmp_path), "--out", str(tmp_path / "site")]).exit_code == 0
    assert (tmp_path / "site" / "pages" / "a.html").is_file()
    kept = tmp_path / "run" / "traces" / "step-000000"
    kept.mkdir(parents=True)
    make_trace().save(kept / "prompt-00-r00.safetensors")
    out = tmp_path / "run.html"
    assert runner.invoke(app, ["page", str(tmp_path / "run"), "--training", "--out", str(out)]).exit_code == 0
    assert "run: 1 kept step, 0 to 0" in out.read_text(encoding="utf-8")
    (kept / "batch-r00.safetensors").write_bytes(b"damaged")
    done = runner.invoke(app, ["page", str(tmp_path / "run"), "--training", "--out", str(out)])
    assert done.exit_code == 0
    assert "skipped batch-r00.safetensors" in done.stderr
    (kept / "prompt-00-r00.safetensors").unlink()
    done = runner.invoke(app, ["page", str(tmp_path / "run"), "--training", "--out", str(out)])
    assert isinstance(done.exception, FormatError)
    refused = runner.invoke(app, ["page", str(kept), str(kept), "--training", "--out", str(out)])
    assert "one run" in str(refused.exception)


@pytest.mark.parametrize(("count", "page"), [(2, "compare"), (3, "group")])
def test_compare_writes_a_page(tmp_path, count, page):
    files = [str(make_trace().save(tmp_path / f"{n}.safetensors")) for n in range(count)]
    out = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["compare", *files, "--html", str(out)]).exit_code == 0
    assert f'data-page="{page}"' in out.read_text(encoding="utf-8")
