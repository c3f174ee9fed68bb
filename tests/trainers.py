"""Trainers over the tiny model, and one that samples what the tiny model could not."""

from __future__ import annotations

import functools
import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from flowtracer.credit import Signals
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from tiny import tiny_model, tiny_tokenizer


def vowels(completions, **_):
    """A reward that a random model gets different amounts of."""
    return [sum(c.count(v) for v in "aeiou") / 10 for c in completions]


def rows():
    return [{"prompt": f"what is {i} + 4?" + " x" * (i % 3), "gold": str(i + 4)} for i in range(16)]


@functools.cache
def saved_model():
    """TRL reloads the model by its path for the reference of the KL term."""
    folder = tempfile.mkdtemp()
    tiny_model().save_pretrained(folder)
    return folder


def make_trainer(tmp_path, cls=FlowGRPOTrainer, config=FlowGRPOConfig, *, credit=None, model=None, **options):
    arguments = config(
        output_dir=str(tmp_path),
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 12,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 3,
            **options,
        },
    )
    extra = {} if credit is None else {"credit": credit}
    return cls(
        model=AutoModelForCausalLM.from_pretrained(model or saved_model()),
        processing_class=tiny_tokenizer(),
        args=arguments,
        train_dataset=Dataset.from_list(rows()),
        reward_funcs=[vowels],
        **extra,
    )


def weights_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def every_other(signals: Signals) -> torch.Tensor:
    """A strategy with known factors."""
    factors_R = torch.where(torch.arange(signals.mask_BR.shape[1]) % 2 == 0, 1.5, 1.0)
    return signals.weighted(factors_R.expand(signals.mask_BR.shape))


RESPONSES = [r"a e i u = 7, so \boxed{7}. A", "so 3 + 4 = 9.\nSo it is \\boxed{9}", "no idea, a e i", r"\boxed{12}"]


class Answering(FlowGRPOTrainer):
    """Samples as the tiny model cannot: every response has reasoning and, but for one, an answer in a box."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        ids, *rest = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        made = [self.processing_class(text)["input_ids"] for text in RESPONSES]
        return [[*made[i % 4], self.processing_class.eos_token_id] for i in range(len(ids))], *rest


def saying(trainer, responses, first=0):
    """Make the model say what it would not by itself, token by token, as it generates, from response `first` on."""
    tokenizer, model = getattr(trainer.processing_class, "tokenizer", trainer.processing_class), trainer.model
    forced = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in responses]

    def allowed(row, ids):
        said, place = forced[(first + row) % len(forced)], len(ids) - width[0]
        return [said[place] if place < len(said) else tokenizer.pad_token_id]

    def generate(input_ids, **options):
        width[:] = [input_ids.shape[1]]
        return spoken(input_ids=input_ids, prefix_allowed_tokens_fn=allowed, **options)

    width, spoken = [0], model.generate
    model.generate = generate
    model.train()
