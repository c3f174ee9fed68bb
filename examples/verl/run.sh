#!/usr/bin/env bash
# Flow credit in verl on one machine of 8 GPUs: Qwen3-4B on DAPO-Math-17K, by the paper's recipe.
#   examples/verl/run.sh                                       the run
#   examples/verl/run.sh trainer.v1.trainer_mode=sync          the same without credit: verl's own GRPO
#   examples/verl/run.sh trainer.nnodes=4 data.train_batch_size=256 ...   whatever else verl takes
# The four lines with "flow" are all that credit adds to a run of verl's.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${DATA:-data/dapo}

python -m flowtracer.rl.verl
[ -f "$data/train.parquet" ] || python "$here/data.py" "$data"

python -m verl.trainer.main_ppo \
  trainer.v1.trainer_mode=flow \
  +trainer.v1.flow.credit=flow \
  +trainer.v1.flow.credit_options.layers='[15,16,17,18,19,20,21,22,23,24,25]' \
  +trainer.v1.flow.credit_options.gamma=1.5 \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="$data/train.parquet" \
  data.val_files="$data/validation.parquet" \
  data.train_batch_size=64 \
  data.max_prompt_length=1024 \
  data.max_response_length=8192 \
  data.filter_overlong_prompts=True \
  data.truncation=error \
  +data.apply_chat_template_kwargs.enable_thinking=False \
  reward.custom_reward_function.path="$here/reward.py" \
  actor_rollout_ref.model.path=Qwen/Qwen3-4B \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.model.enable_gradient_checkpointing=True \
  actor_rollout_ref.actor.strategy=fsdp2 \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=64 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=18432 \
  actor_rollout_ref.actor.loss_agg_mode=token-mean \
  actor_rollout_ref.actor.policy_loss.loss_mode=vanilla \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.entropy_coeff=0 \
  actor_rollout_ref.actor.ulysses_sequence_parallel_size=1 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.temperature=0.99 \
  actor_rollout_ref.rollout.top_k=100 \
  actor_rollout_ref.rollout.top_p=1.0 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=18432 \
  trainer.n_gpus_per_node=8 \
  trainer.nnodes=1 \
  trainer.total_training_steps=500 \
  trainer.save_freq=50 \
  trainer.test_freq=25 \
  trainer.project_name=flowtracer \
  trainer.experiment_name=qwen3-4b-flow \
  trainer.logger='[console,tensorboard]' \
  "$@"
