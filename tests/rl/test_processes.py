"""Two processes train to the weights that one trains to, each holding the model whole or a shard of it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny import tiny_model

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own

FLOW = {"max_steps": 2}
SAVED = {"save_strategy": "steps", "save_steps": 1, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
RIDING = {"max_steps": 2, "num_iterations": 2}
GAIN = {"max_steps": 1, "strategy": "likelihood_gain"}
SHARDED = {"fsdp": True, "per_device_train_batch_size": 2}
RUNS = {
    "whole": FLOW | {"per_device_train_batch_size": 2},
    "sharded": FLOW | SHARDED | SAVED,
    "resumed": FLOW | SHARDED | SAVED | {"folder": "sharded", "resume": "checkpoint-1"},
    "riding": RIDING | SHARDED,
    "gain": GAIN | SHARDED,
    "uneven": SHARDED | {"strategy": "oar"},
    "traced": SHARDED | {"trace_steps": 1},
}
"""What two processes run, one after another: starting them takes longer than all of it."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def two(saved, tmp_path_factory):
    """What two processes, started as users start them, have left."""
    out = tmp_path_factory.mktemp("two")
    (out / "runs.json").write_text(json.dumps({name: {"model": saved, **options} for name, options in RUNS.items()}))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(HERE / "processes.py"), str(out), str(out / "runs.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.fixture(scope="module")
def one(saved, tmp_path_factory):
    """The same in one process, which holds all four responses: weights by name of a run."""
    spec = importlib.util.spec_from_file_location("processes", HERE / "processes.py")
    processes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(processes)
    out = tmp_path_factory.mktemp("one")
    runs = {"whole": FLOW, "riding": RIDING, "gain": GAIN}
    return {name: processes.run(out / name, saved, **options) for name, options in runs.items()}


def said(out, name):
    return [json.loads((out / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("whole", "whole"),
        ("sharded", "whole"),
        ("resumed", "whole"),
        ("riding", "riding"),
        ("gain", "gain"),
    ],
)
def test_two_processes_train_to_the_weights_that_one_trains_to(two, one, saved, name, alone):
    start, got = load_file(f"{saved}/model.safetensors"), load_file(two / f"{name}.safetensors")
    expected, log = one[alone]
    assert set(got) == set(expected)
    assert max(float((expected[key] - start[key]).abs().max()) for key in start) > 1e-2, "nothing was learned"
    for key, value in got.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5)
    shares = [line["credit/traced"] for line in said(two, name)[0]["log"] if "credit/traced" in line]
    assert shares == [line["credit/traced"] for line in log["log"] if "credit/traced" in line]


def test_sharded_processes_run_as_many_forwards_of_credits_own(two):
    for name, forwards in {"sharded": 2, "resumed": 1, "gain": 0}.items():
        reads = [each["reads"] for each in said(two, name)]
        assert [len(widths) for widths in reads] == [forwards, forwards]
        assert all(each["kind"] == "FSDP" for each in said(two, name))
        # The second process has no answer to trace, and shorter responses.
        assert all(wide > narrow for wide, narrow in zip(*reads, strict=True))
    # Read off the pass that computes old log-probabilities; the one forward proves that it may be.
    assert [len(each["reads"]) for each in said(two, "riding")] == [1, 1]
    assert [line["credit/own_forward"] for line in said(two, "riding")[0]["log"][:1]] == [0]


def test_a_process_that_holds_the_model_whole_reads_generation(two):
    for each in said(two, "whole"):
        assert each["kind"] == "MULTI_CPU"
        assert [line["credit/own_forward"] for line in each["log"]] == [0, 0]


def test_a_sharded_checkpoint_is_in_shards(two):
    shards = two / "sharded" / "checkpoint-1" / "pytorch_model_fsdp_0"
    assert {path.name for path in shards.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("uneven", "perturbation takes another number of passes"), ("traced", "expected trace_steps=0")],
)
def test_what_processes_could_not_do_alike_is_refused_by_each(two, name, message):
    for each in said(two, name):
        assert message in each["refused"]
