"""verl's configuration of a run that two processes on a CPU can do."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_module

from flowtracer.model.load import PACKAGED

NANO = str(PACKAGED["nano"])

ON_CPU = {
    "algorithm.adv_estimator": "grpo",
    "actor_rollout_ref.model.path": NANO,
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": False,
    "actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "actor_rollout_ref.actor.use_dynamic_bsz": True,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 512,
    "actor_rollout_ref.actor.use_torch_compile": False,
    "actor_rollout_ref.actor.fsdp_config.mixed_precision": "{param_dtype: fp32, reduce_dtype: fp32}",
    "actor_rollout_ref.actor.optim.lr": 1e-3,
    "actor_rollout_ref.rollout.name": "on_cpu",
    "actor_rollout_ref.rollout.calculate_log_probs": False,  # rollouts.py samples without
    "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz": True,
    "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu": 512,
    "data.max_prompt_length": 128,
    "data.max_response_length": 128,
    "reward.num_workers": 1,
    "trainer.device": "cpu",
}


def configured(changes=None):
    """verl's own configuration, composed as its command line does."""
    given = {**ON_CPU, **(changes or {})}
    overrides = [f"++{name}={'null' if value is None else value}" for name, value in given.items()]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=overrides)


def in_folder(folder: Path):
    """What a whole run needs besides."""
    return {
        "data.train_files": str(folder / "train.parquet"),
        "data.val_files": str(folder / "train.parquet"),
        "data.train_batch_size": 4,
        "data.dataloader_num_workers": 0,
        "data.shuffle": False,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.rollout.n": 4,
        "actor_rollout_ref.rollout.agent.agent_loop_manager_class": "rollouts.OneProcess",
        "reward.custom_reward_function.path": str(Path(__file__).with_name("rollouts.py")),
        "trainer.n_gpus_per_node": 2,
        "trainer.val_before_train": False,
        "trainer.test_freq": -1,
        "trainer.save_freq": -1,
        "trainer.logger": "[console]",
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
    }
