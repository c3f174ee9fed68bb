"""What cannot go with credit by token is refused before a worker starts, by name, and says what to do."""

import os
import subprocess
import sys

import pytest
from configured import configured
from omegaconf import open_dict
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine import EngineRegistry

from flowtracer.credit import make_credit, reads_of
from flowtracer.errors import InputError
from flowtracer.rl.verl.engine import FlowEngine
from flowtracer.rl.verl.losses import refuse_blind_policy_loss
from flowtracer.rl.verl.options import CreditOptions, credit_options
from flowtracer.rl.verl.refusals import refuse_config, refuse_credit
from flowtracer.rl.verl.trainer import FlowTrainer

FLOW = reads_of(make_credit("flow"))


def test_a_plain_configuration_goes():
    refuse_config(configured(), FLOW)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("actor_rollout_ref.actor.ulysses_sequence_parallel_size", 2, "sequence parallelism"),
        ("actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size", 4, "sequence parallelism"),
        ("algorithm.adv_estimator", "gae", "one advantage a response"),
        ("algorithm.adv_estimator", "reinforce_plus_plus", "one advantage a response"),
        ("algorithm.rollout_correction.bypass_mode", True, "bypass_mode=False"),
        ("distillation.enabled", True, "distillation"),
    ],
)
def test_what_cannot_go_is_refused(key, value, said):
    with pytest.raises(InputError, match=said):
        refuse_config(configured({key: value}), FLOW)


@pytest.mark.parametrize("strategy", ["megatron", "veomni", "torchtitan", "automodel"])
def test_other_engines_are_refused(strategy):
    config = configured()
    config.actor_rollout_ref.actor.strategy = strategy
    with pytest.raises(InputError, match=f"fsdp, fsdp2, got '{strategy}'"):
        refuse_config(config, FLOW)


def test_without_a_pass_goes_what_reads_none():
    bypass = configured({"algorithm.rollout_correction.bypass_mode": True})
    for name in ("uniform", "random", "correlation"):
        refuse_config(bypass, reads_of(make_credit(name)))


@pytest.mark.parametrize("options", [{"capacity": "alti"}, {"graph": "layered"}, {"capacity": "value"}])
def test_other_graphs_are_refused(options):
    with pytest.raises(InputError, match="leave both options out"):
        refuse_credit("flow", reads_of(make_credit("flow", options)))


BLIND = {"kl_cov", "geo_mean"}


@pytest.mark.parametrize("loss", sorted(POLICY_LOSS_REGISTRY))
def test_which_policy_losses_take_credit_by_token(loss):
    config = configured({"actor_rollout_ref.actor.policy_loss.loss_mode": loss})
    with open_dict(config):
        config.actor_rollout_ref.actor.policy_loss.dro_beta = 0.1
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    if loss not in BLIND:
        refuse_blind_policy_loss(actor)
        return
    with pytest.raises(InputError, match=f"'{loss}'"):
        refuse_blind_policy_loss(actor)


def test_the_trainer_refuses_before_anything_starts():
    config = configured({"actor_rollout_ref.actor.policy_loss.loss_mode": "geo_mean"})
    with pytest.raises(InputError, match="geo_mean"):
        FlowTrainer(config)
    with pytest.raises(InputError, match="gradient"):
        FlowTrainer(configured({"trainer.v1.flow.credit": "gradient"}))


def test_options_of_a_run():
    given = {"credit": "random", "credit_options.ratio": 0.2, "credit_normalise": True, "seed": 7}
    config = configured({f"trainer.v1.flow.{name}": value for name, value in given.items()})
    expected = CreditOptions(credit="random", credit_options={"ratio": 0.2}, credit_normalise=True, seed=7)
    assert credit_options(config) == expected
    assert credit_options(configured()) == CreditOptions()
    with pytest.raises(InputError, match="got gama"):
        credit_options(configured({"trainer.v1.flow.gama": 2}))


@pytest.mark.parametrize(("vendor", "device"), [("nvidia", "cuda"), ("amd", "cuda")])
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_the_plug_in_is_loaded_by_importing_verl(monkeypatch, vendor, device, strategy):
    monkeypatch.setenv("VERL_ENGINE_VENDOR", vendor)
    monkeypatch.setenv("VERL_ENGINE_DEVICE", device)
    assert EngineRegistry.get_engine_cls("language_model", strategy) is FlowEngine
    assert not issubclass(EngineRegistry.get_engine_cls("value_model", strategy), FlowEngine)
    assert get_trainer_cls("flow") is FlowTrainer


@pytest.mark.parametrize(("policy", "code"), [("auto", 0), ("flowtracer", 0), ("none", 1)])
def test_whether_it_loads_can_be_asked(policy, code):
    environment = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": policy}
    done = subprocess.run(
        [sys.executable, "-m", "flowtracer.rl.verl"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    assert ("flowtracer.rl.verl.trainer" in done.stdout) == (code == 0)
