"""Stored rollouts traced by real Ray actors, one of which is killed."""

import json
import os
import sys
from functools import partial

import psutil
import pytest
from typer.testing import CliRunner

from flowtracer.cli import app
from flowtracer.cli.trace import _measuring
from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.trace.rollout_table import read_rows
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.job import TraceJob
from flowtracer.tracing.parts import encode_window, finish_parts, part_files
from flowtracer.tracing.ray_engine import _heard, _read, _row, _Worker, trace_with_ray

# A busy machine starts slowly, and workers, which are nice by 15, have no time on it at all.
PATIENCE = {"gcs_rpc_server_connect_timeout_s": 60, "gcs_server_request_timeout_seconds": 120, "worker_niceness": 0}
os.environ.update({f"RAY_{name}": str(value) for name, value in PATIENCE.items()}, RAY_NUM_REDIS_GET_RETRIES="120")
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # else it warns of what it will do some day

ray = pytest.importorskip("ray", reason="Ray has no build for this Python or system yet")

WINDOW, ROLLOUTS = 16, 160


@pytest.fixture(scope="module")
def cluster():
    started = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield started
    ray.shutdown()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("input") / "rollouts.jsonl"
    lines = []
    for n in range(ROLLOUTS):
        response = f"3 + {n} = {3 + n}.\n" * (1 + n % 5) + f"A: {3 + n}"
        lines.append({"prompt": "Ann has 3.", "response": response, "id": f"r{n}", "reward": n % 2})
    lines[7]["response"] = "says nothing"
    content = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_text(content + '{"prompt": cut', encoding="utf-8")
    return file


def job(rollouts, model, out, **more):
    named = {"rollouts": str(rollouts), "model": model, "layers": None, "dtype": None, "effects": 0, "engine": "ray"}
    usual = {"limit": None, "device": "cpu", "dtype": None, "tracer": {}, "max_tokens": 256, "keep_traces": False}
    return TraceJob(
        **{"rollouts": str(rollouts), "out": out, "model": model, "options": named, **usual, "window": WINDOW, **more},
        measure=partial(_measuring, 0, 256),
    )


def actors():
    """Processes of the pool."""
    own = psutil.Process().children(recursive=True)
    return [process for process in own if process.is_running() and "_Worker" in " ".join(process.cmdline())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # it warns of its own options
def test_a_worker_that_is_killed_costs_nothing(cluster, written, model, tmp_path):
    parts = []
    for part in trace_with_ray(job(written, model, tmp_path / "out"), 2):
        parts.append(part)
        if len(parts) == 2:
            actors()[0].kill()
    assert len({part.name for part in parts}) == len(parts) == ROLLOUTS // WINDOW + 1
    summary = finish_parts(tmp_path / "out", [part.name for part in parts])
    assert (summary.rollouts, summary.traced) == (ROLLOUTS + 1, ROLLOUTS - 1)
    assert summary.skipped == {"no_answer": 1, "broken_json": 1}
    found = list(read_rows(part_files(tmp_path / "out")))
    assert [row["place"] for row in found] == list(range(ROLLOUTS + 1)), "nothing lost, nothing twice"
    assert [row["id"] for row in found[:-1]] == [f"r{n}" for n in range(ROLLOUTS)]
    assert summary.largest_conservation_error < 1e-9

    with pytest.raises(InputError, match="room for 3 actors, got 2 CPU cores"):
        next(trace_with_ray(job(written, model, tmp_path / "out"), 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_the_command_writes_tables_and_their_index(cluster, written, model, tmp_path):
    out = tmp_path / "out"
    arguments = ["trace", str(written), "--model", model, "--out", str(out), "--limit", "20", "--html"]
    done = CliRunner().invoke(app, [*arguments, "--engine", "ray", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "19 (95%)" in done.output
    assert "no_answer" in done.output
    assert [row["id"] for row in read_rows(part_files(out))] == [f"r{n}" for n in range(20)]
    assert json.loads((out / "summary.json").read_text())["traced"] == 19
    assert (out / "index.html").is_file()
    assert not (out / "traces").exists()


def test_without_ray_the_way_to_it_is_said(monkeypatch, written, model, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    with pytest.raises(MissingDependencyError, match=r'pip install "flowtracer\[ray\]"'):
        next(trace_with_ray(job(written, model, tmp_path / "out")))
    with pytest.raises(InputError, match="expected --engine ray beside --actors"):
        CliRunner().invoke(
            app, ["trace", str(written), "--model", model, "--out", "out", "--actors", "2"], catch_exceptions=False
        )


def test_a_mistake_travels_as_what_it_is(written, model, tmp_path):
    window = encode_window([Rollout(prompt="p", response="A: 1")])
    for wrong, message in (
        ({"model": "no/such/model"}, "expected a hub id"),
        ({"tracer": {"layers": [99]}}, "layer"),
        ({"tracer": {"at": "end"}}, "expected at among"),
    ):
        given = job(written, **{"model": model, **wrong}, out=tmp_path / "out")
        line = _Worker(given)(_row(place=0, window=window))["line"][0].as_py()
        with pytest.raises(InputError, match=message):
            _heard(line, given)
        assert not (tmp_path / "out").exists(), "a mistake leaves no mark"
    full = job(written, model, tmp_path / "full")
    worker = _Worker(full)
    (full.out / "tokens").rmdir()
    (full.out / "tokens").write_text("")
    with pytest.raises(InputError, match="a folder that can be written"):
        _heard(worker(_row(place=0, window=window))["line"][0].as_py(), full)
    gone = job("none.jsonl", model, tmp_path / "out")
    [row] = _read(None, gone)
    with pytest.raises(InputError, match="no file; check the path"):
        _heard(row["line"][0].as_py(), gone)
    elsewhere = json.dumps({"part": {"name": "part-0", "made": 1, "held": 0, "skipped": {}}})
    with pytest.raises(InputError, match="shared storage"):
        _heard(elsewhere, gone)
