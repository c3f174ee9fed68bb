"""Whole steps of verl on Ray: two processes of FSDP2, the transfer queue, rollouts of nano, and weights that changed.

Each run is verl's own `main_ppo` in a process of its own, with what `on_cpu.py` and `rollouts.py` put in the place of
GPUs and of vLLM.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from left_behind import apart, batch, credited, metrics, weights

from flowtracer.rl.verl.scores import FIELD

RUN = Path(__file__).with_name("run_step.py")
STEPS = 2


def run(folder, changes, **environment):
    """What a run leaves behind."""
    folder.mkdir()
    return subprocess.run(
        [sys.executable, str(RUN), str(folder), json.dumps({"trainer.total_training_steps": STEPS, **changes})],
        env={**os.environ, "RUN_FOLDER": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run by verl's own trainer and engine, the same with credit "uniform", and one by flow."""
    folder = tmp_path_factory.mktemp("runs")
    options = {
        "flow": ({"trainer.v1.trainer_mode": "flow"}, {}),
        "stock": ({"trainer.v1.trainer_mode": "sync"}, {"VERL_ENGINE_VENDOR": "stock"}),
        "uniform": ({"trainer.v1.trainer_mode": "flow", "trainer.v1.flow.credit": "uniform"}, {}),
    }
    for name, (changes, environment) in options.items():
        done = run(folder / name, changes, **environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def test_uniform_is_verls_own_run_to_the_bit(runs):
    for step in range(STEPS + 1):
        stock, uniform = weights(runs / "stock", step), weights(runs / "uniform", step)
        assert all(torch.equal(stock[name], uniform[name]) for name in stock)
    for step in range(1, STEPS + 1):
        stock, uniform = batch(runs / "stock", step), batch(runs / "uniform", step)
        for name in ("responses", "old_log_probs", "advantages"):
            assert all(map(torch.equal, stock[name], uniform[name]))
        assert FIELD not in stock
        assert FIELD not in uniform


def test_weights_change_and_otherwise_than_without_credit(runs):
    before, after = weights(runs / "flow", 0), weights(runs / "flow", 1)
    assert apart(before, weights(runs / "stock", 0)) == 0
    assert apart(after, before) > 1e-4
    assert apart(after, weights(runs / "stock", 1)) > 1e-6


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_credit_is_that_of_a_loop_of_ones_own(runs, step):
    got, expected = batch(runs / "flow", step), credited(runs / "flow", step)
    for row, advantages_R in enumerate(got["advantages"]):
        assert torch.allclose(advantages_R, expected.advantages_BR[row, : len(advantages_R)], rtol=1e-4, atol=1e-5)
    assert float(((expected.weights_BR > 1) & expected.mask_BR).any(-1).sum()) >= 4, (
        "the test needs credit that differs"
    )


def test_metrics_say_what_credit_did(runs):
    for step in range(1, STEPS + 1):
        said = metrics(runs / "flow", step)
        assert 0.3 < said["credit/boosted_share"] < 0.5
        assert 1.1 < said["credit/mean_factor"] < 1.3
        assert 0 < said["credit/traced"] <= 1
        assert 0 < said["credit/flow_in_boosted"] <= 1
        assert said["credit/seconds"] > 0
        assert metrics(runs / "uniform", step)["credit/mean_factor"] == pytest.approx(1)


def test_workers_with_another_engine_end_the_run(tmp_path):
    done = run(tmp_path / "other", {"trainer.v1.trainer_mode": "flow"}, VERL_ENGINE_VENDOR="stock")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "expected flowtracer.rl.verl.engine.FlowEngine in every worker" in said
    assert "FSDPEngineWithLMHead" in said
