"""examples/verl: its run is one that verl's configuration has, and its data and reward are what that run reads."""

import importlib.util
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config

from flowtracer.credit import make_credit, reads_of
from flowtracer.rl.verl.losses import refuse_blind_policy_loss
from flowtracer.rl.verl.options import credit_options
from flowtracer.rl.verl.refusals import refuse_config, refuse_credit

EXAMPLE = Path(__file__).parents[2] / "examples" / "verl"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def overrides():
    """What the script hands to verl, as its shell would."""
    script = (
        (EXAMPLE / "run.sh").read_text(encoding="utf-8").replace("$data", "data/dapo").replace("$here", str(EXAMPLE))
    )
    command = script.replace("\\\n", " ").split("verl.trainer.main_ppo", 1)[1]
    return [word for word in shlex.split(command) if word != "$@"]


@pytest.fixture(scope="module")
def config():
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides())  # an unknown key is an error of hydra's


def test_every_key_is_one_of_verls(config):
    assert len(overrides()) > 40
    assert config.actor_rollout_ref.rollout.top_k == 100
    assert config.actor_rollout_ref.actor.optim.lr == 1e-6
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))


def test_credit_goes_with_it(config):
    options = credit_options(config)
    credit = make_credit(options.credit, options.credit_options)
    assert tuple(reads_of(credit).layers) == tuple(range(15, 26))
    refuse_credit(options.credit, reads_of(credit))
    refuse_config(config, reads_of(credit))
    refuse_blind_policy_loss(omega_conf_to_dataclass(config.actor_rollout_ref.actor))


def test_the_last_changes_win():
    assert (EXAMPLE / "run.sh").read_text(encoding="utf-8").rstrip().endswith('"$@"')


def test_data_holds_each_problem_once():
    data = loaded("data")
    questions = ["What is $1+1$?", "What is $2+2$?", "What is $1+1$?"]
    records = [
        {
            "prompt": [{"role": "user", "content": data.BEFORE + question + data.BEHIND}],
            "reward_model": {"ground_truth": truth, "style": "rule-lighteval/MATH_v2"},
        }
        for question, truth in zip(questions, ["2", "4", "2"], strict=True)
    ]
    rows = list(data.rows_of(records))
    assert [row["prompt"][0]["content"] for row in rows] == [question + data.ASK for question in questions[:2]]
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["2", "4"]
    assert [row["extra_info"]["index"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("response", "truth", "reward"),
    [
        (r"So it is \boxed{34}.", "34", 1.0),
        (r"So it is \boxed{1{,}034}.", "1034", 1.0),
        (r"So \boxed{x = 34}", "34", 1.0),
        ("Answer: 34", "34", 1.0),
        (r"\boxed{-3}", "-3", 1.0),
        (r"\boxed{35}", "34", 0.0),
        (r"\boxed{34.5}", "34", 0.0),
        (r"\boxed{34.5}", "345", 0.0),
        (r"\boxed{\frac{3}{4}}", "34", 0.0),
        ("no answer, 34", "34", 0.0),
        ("", "34", 0.0),
    ],
)
def test_the_reward_is_that_of_the_integer(response, truth, reward):
    assert loaded("reward").compute_score("dapo-math-17k", response, truth) == reward
