"""What takes the place of vLLM in a whole run: nano, sampled in one process, through seams that verl has for it.

1. `OnDisk` is a rollout of verl's, which is given the policy's weights after each step; it keeps them on disk.
2. `OneProcess` is an agent loop manager (`rollout.agent.agent_loop_manager_class`): it loads those weights, samples,
   scores, and puts trajectories into the transfer queue as verl's own does.
3. `compute_score` is a reward function as verl loads it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import transfer_queue as tq
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.import_utils import load_extern_object
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.base import BaseRollout

from flowtracer.tasks.countdown import Countdown

TASK = Countdown(brief=True)


def folder():
    """Of the run, in every process."""
    return Path(os.environ["RUN_FOLDER"])


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """Countdown's own verdict, and a little for an answer of its form, so that groups differ."""
    problem = TASK.pose(**json.loads(ground_truth))
    verdict = TASK.verify(problem, solution_str)
    return float(verdict.correct) + 0.1 * float(verdict.well_formed)


class OnDisk(BaseRollout):
    """Keeps the weights that verl hands to the engine that samples."""

    async def resume(self, tags):
        pass

    async def release(self):
        pass

    async def update_weights(self, weights, wire_format="named_tensors", global_steps=None, **_):
        held = {name: tensor.detach().clone().contiguous() for name, tensor in weights}  # each rank takes part
        if torch.distributed.get_rank() == 0:
            save_file(held, folder() / f"weights-{global_steps}.safetensors")


class OneProcess:
    """Samples a batch of prompts, `rollout.n` responses each."""

    def __init__(self, config):
        self.config = config
        path = config.actor_rollout_ref.model.path
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path)
        reward = config.reward.custom_reward_function
        self.score = load_extern_object(reward.path, reward.name)

    @classmethod
    def create(cls, config, **_):
        return cls(config)

    def generate_sequences(self, prompts):
        step = int(prompts["global_steps"])
        weights = load_file(folder() / f"weights-{step - 1}.safetensors")
        self.model.load_state_dict(weights, strict=False)
        torch.manual_seed(step)
        for row in prompts:
            self._sample(row["uid"], row["raw_prompt"], row["reward_model"]["ground_truth"], step)

    def _sample(self, uid, messages, truth, step):
        rollout = self.config.actor_rollout_ref.rollout
        asked = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        sampled = self.model.generate(
            torch.tensor([asked] * rollout.n),
            do_sample=True,
            temperature=rollout.temperature,
            max_new_tokens=rollout.response_length,
        )[:, len(asked) :].tolist()
        end = self.tokenizer.eos_token_id
        responses = [ids[: ids.index(end) + 1] if end in ids else ids for ids in sampled]
        scores = [self.score("countdown", self.tokenizer.decode(ids), truth) for ids in responses]
        fields = [self._fields(uid, asked, *pair) for pair in zip(responses, scores, strict=True)]
        tags = [
            {"status": "success", "prompt_len": len(asked), "response_len": len(ids), "seq_len": len(asked) + len(ids)}
            | {"global_steps": step, "min_global_steps": step - 1, "max_global_steps": step - 1}
            for ids in responses
        ]
        tq.kv_batch_put(
            keys=[f"{uid}_{session}_0" for session in range(rollout.n)],
            fields=list_of_dict_to_tensordict(fields),
            tags=tags,
            partition_id="train",
        )
        tq.kv_put(key=uid, partition_id="train", tag={"status": "finished"})

    @staticmethod
    def _fields(uid, asked, ids, score):
        response_mask = torch.ones(len(ids), dtype=torch.long)
        rewards = torch.zeros(len(ids))
        rewards[-1] = score
        return {
            "uid": uid,
            "prompts": torch.tensor(asked),
            "responses": torch.tensor(ids),
            "response_mask": response_mask,
            "loss_mask": response_mask,
            "input_ids": torch.tensor([*asked, *ids]),
            "position_ids": torch.arange(len(asked) + len(ids)),
            "rm_scores": rewards,
            "num_turns": 2,
            "multi_modal_inputs": {},
        }
