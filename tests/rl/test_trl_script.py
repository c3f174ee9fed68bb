"""TRL's own script with credit, and the files that start it on several GPUs, as far as one machine can read them."""

import importlib.util
from pathlib import Path

import pytest
import torch
import trl
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from trl import cli
from trl.scripts import grpo

from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from trainers import rows, vowels

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own


def example(monkeypatch):
    for name in ("GRPOConfig", "GRPOTrainer"):
        monkeypatch.setattr(trl, name, getattr(trl, name))  # so that it is put back
    spec = importlib.util.spec_from_file_location("trl_grpo", EXAMPLES / "trl_grpo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_file(tmp_path, model):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(f'{{"prompt": "{row["prompt"]}"}}\n' for row in rows()))
    options = {
        "model_name_or_path": model,
        "dtype": "float32",
        "dataset_name": str(data),
        "reward_funcs": [f"{vowels.__module__}.vowels"],
        "output_dir": str(tmp_path / "out"),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 12,
        "learning_rate": 0.01,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
    }
    credit = {"credit": "position", "credit_options": {"gamma": 3.0}, "credit_normalise": True}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(options | credit))
    return path, options


def test_the_yaml_of_trl_trains_with_credit(tmp_path, model, monkeypatch):
    made = []

    class Kept(FlowGRPOTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    script = example(monkeypatch)
    monkeypatch.setattr(script, "FlowGRPOTrainer", Kept)
    path, options = run_file(tmp_path, model)
    script.main(["--config", str(path)])
    assert made[0].credit.gamma == 3.0
    assert made[0].args.credit_normalise
    start, end = (load_file(Path(folder) / "model.safetensors") for folder in (model, options["output_dir"]))
    assert any(not torch.equal(start[name], end[name]) for name in start)


def test_trl_itself_has_no_place_for_credit(tmp_path, model, capsys):
    """Which is why docs/training.md says to run the example instead."""
    path, _ = run_file(tmp_path, model)
    with pytest.raises(SystemExit):
        cli.main(["grpo", "--config", str(path)])
    assert "unrecognized arguments: --credit" in capsys.readouterr().err
    arguments = grpo.make_parser().parse_args_and_config(["--config", str(path)], fail_with_unknown_args=False)
    assert not hasattr(arguments[1], "credit"), "its script passes over them"


def test_the_run_file_of_the_cluster_says_what_flow_is():
    parser = trl.TrlParser((grpo.GRPOScriptArguments, FlowGRPOConfig, trl.ModelConfig, trl.DatasetMixtureConfig))
    given = ["--config", str(EXAMPLES / "cluster" / "qwen3.yaml"), "--use_cpu", "true"]
    script, arguments, model, _ = parser.parse_args_and_config(given)
    assert (arguments.credit, arguments.credit_options) == ("flow", {"ratio": 0.4, "gamma": 1.5})
    told = parser.parse_args_and_config([*given, "--credit_options", '{"gamma": 2.0}'])[1]
    assert told.credit_options == {"gamma": 2.0}
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * 8 == 512
    assert (script.dataset_name, model.model_name_or_path) == ("trl-lib/DeepMath-103K", "Qwen/Qwen3-4B")


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero3", "DEEPSPEED")])
def test_accelerate_reads_the_launch_files(name, kind):
    config = load_config_from_file(str(EXAMPLES / "cluster" / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.num_processes == 8
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if name == "zero3":
        assert config.deepspeed_config["zero_stage"] == 3
