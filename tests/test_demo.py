"""The demo, at its smallest: every part runs, is kept, and goes on after an interruption."""

import json

import pytest

from flowtracer import demo
from flowtracer.demo import Scale, run_demo
from flowtracer.errors import InputError
from flowtracer.trace.trace import load_trace

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")

SMALL = Scale(steps=2, problems=24)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    stages, lines = [], []
    result = run_demo(out, scale=SMALL, on_stage=stages.append, on_log=lines.append)
    return out, result, stages, lines


def test_it_trains_and_measures_the_same_problems(done):
    out, result, stages, lines = done
    assert len(stages) == 4
    assert [line["step"] for line in lines if "reward" in line] == [1, 2]
    assert [line["step"] for line in lines if "held_out/accuracy" in line] == [0, 2]
    assert result.before.items == result.after.items == result.gain.items == 24
    assert result.gain.mean == pytest.approx(result.after.mean - result.before.mean)
    assert len(json.loads((out / "before.json").read_text())) == 24


def test_started_again_it_only_shows_its_result(done):
    out, result, _, _ = done
    lines = []
    again = run_demo(out, scale=SMALL, on_log=lines.append)
    assert not lines
    assert (again.before, again.after, again.gain) == (result.before, result.after, result.gain)


def test_a_mended_problem_is_traced_before_and_after(done):
    out, _, _, _ = done
    run = demo.demo_run(out, SMALL, seed=0)
    task = demo.make_task(run.task.name, run.task.options)
    problems = task.problems("test", 2)
    # What nano writes when it fails and when it solves, on these very problems.
    wrong = [f"1+1=2, no\ngive up\n<answer>{problem.facts['numbers'][0]}</answer>" for problem in problems]
    right = [f"1+1=2, yes\n<answer>{problem.gold}</answer>" for problem in problems]
    verdicts = tuple(demo.judge(task, problems, texts) for texts in (wrong, right))
    models = (run.model, str(run.output_dir / "final"))
    change = demo._change(out, models, problems, (wrong, right), verdicts)
    assert change.responses[0] in wrong
    assert change.responses[1] in right
    for name, trace in zip(("before", "after"), change.traces, strict=True):
        assert load_trace(out / f"{name}.safetensors").answer_text == trace.answer_text
        assert (out / f"{name}.html").read_text().startswith("<!doctype html>")
    assert change.page.read_text().startswith("<!doctype html>")
    assert demo._change(out, models, problems, (wrong, wrong), (verdicts[0], verdicts[0])) is None


def test_another_scale_needs_another_folder(done):
    with pytest.raises(InputError, match="steps 3 instead of 2"):
        run_demo(done[0], scale=Scale(steps=3, problems=24))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can be written"):
        run_demo(tmp_path / "file", scale=SMALL)
