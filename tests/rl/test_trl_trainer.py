"""FlowGRPOTrainer against TRL's own trainer and against a loss written by hand."""

import functools
import json
import tempfile

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from flowtracer.credit import Signals, make_credit
from flowtracer.errors import InputError
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer, refuse_nonlinear_loss
from tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own


def vowels(completions, **_):
    """A reward that a random model gets different amounts of."""
    return [sum(c.count(v) for v in "aeiou") / 10 for c in completions]


@functools.cache
def saved_model():
    """TRL reloads the model by its path for the reference of the KL term."""
    folder = tempfile.mkdtemp()
    tiny_model().save_pretrained(folder)
    return folder


def make_trainer(tmp_path, cls=FlowGRPOTrainer, config=FlowGRPOConfig, *, credit=None, **options):
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
        model=AutoModelForCausalLM.from_pretrained(saved_model()),
        processing_class=tiny_tokenizer(),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": f"what is {i} + 4?" + " x" * (i % 3)} for i in range(16)]),
        reward_funcs=[vowels],
        **extra,
    )


def weights_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


class EveryOther:
    """A strategy with known factors."""

    needs = frozenset()

    def __call__(self, signals: Signals) -> torch.Tensor:
        factors_R = torch.where(torch.arange(signals.mask_BR.shape[1]) % 2 == 0, 1.5, 1.0)
        return factors_R.expand(signals.mask_BR.shape).clone()


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_uniform_is_grpo_to_the_bit(tmp_path, loss_type):
    # Each is made just before it trains: the constructor seeds the draws.
    plain = make_trainer(tmp_path / "a", GRPOTrainer, GRPOConfig, loss_type=loss_type, beta=0.04)
    start = weights_of(plain)
    plain.train()
    ours = make_trainer(tmp_path / "b", credit=make_credit("uniform"), loss_type=loss_type, beta=0.04)
    ours.train()
    theirs, mine = weights_of(plain), weights_of(ours)
    assert any(not torch.equal(start[name], theirs[name]) for name in start), "nothing was learned"
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
def test_gradient_is_that_of_a_loss_written_by_hand(tmp_path, loss_type):
    trainer = make_trainer(tmp_path, credit=EveryOther(), loss_type=loss_type)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[0]] * 4
    batch = trainer._generate_and_score_completions(rows)
    assert batch["advantages"].shape == batch["completion_ids"].shape
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    got = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}

    trainer.model.zero_grad()
    loss_by_hand(trainer, batch, loss_type).backward()
    expected = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert max(float(g.abs().max()) for g in got.values()) > 1e-4
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def loss_by_hand(trainer, batch, loss_type):
    """-sum over tokens of factor x advantage x log-probability, normalised as each loss does."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1] / trainer.temperature
    log_probs = logits.log_softmax(-1).gather(-1, batch["completion_ids"][..., None]).squeeze(-1)
    advantages = batch["advantages"][:, 1:2]  # the factor there is 1
    factors = torch.where(torch.arange(width) % 2 == 0, 1.5, 1.0)
    counted = batch["completion_mask"].float()
    terms = -(advantages * factors * log_probs) * counted
    if loss_type == "grpo":
        return (terms.sum(-1) / counted.sum(-1)).mean()
    if loss_type == "bnpo":
        return terms.sum() / counted.sum()
    if loss_type == "dr_grpo":
        return terms.sum() / (len(terms) * trainer.max_completion_length)
    return terms.sum() / batch["num_items_in_batch"]


def test_a_run_that_was_interrupted_ends_the_same(tmp_path):
    whole = make_trainer(tmp_path / "a", credit=EveryOther(), max_steps=4)
    whole.train()
    first = make_trainer(tmp_path / "b", credit=EveryOther(), max_steps=4, save_strategy="steps", save_steps=2)
    first.train()
    again = make_trainer(tmp_path / "b", credit=EveryOther(), max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-2"))
    expected, got = weights_of(whole), weights_of(again)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_metrics_are_logged(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["credit/traced"] + sum(v for k, v in line.items() if k.startswith("credit/miss/")) == pytest.approx(1)
    assert {"credit/boosted_share", "credit/mean_factor", "credit/seconds", "reward"} <= set(line)
    json.dumps(line)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "flwo"}, "expected a credit among"),
        ({"credit_at": "sentence"}, "credit_at"),
        ({"credit_options": {"gamma": -1}}, "gamma"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    credit_name = options.pop("credit", "flow")

    def config(**kwargs):
        return FlowGRPOConfig(**kwargs, credit=credit_name)

    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path, config=config, **options)


def test_options_may_come_as_json(tmp_path):
    trainer = make_trainer(tmp_path, credit_options='{"gamma": 3.0}')
    assert trainer.credit.gamma == 3.0


def test_plain_config_is_refused(tmp_path):
    with pytest.raises(InputError, match="FlowGRPOConfig"):
        make_trainer(tmp_path, config=GRPOConfig)


def test_a_loss_that_flattens_advantages_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, credit=EveryOther())
    trainer.model.train()
    batch = GRPOTrainer._generate_and_score_completions(trainer, [trainer.train_dataset[0]] * 4)
    metrics = {name: list(values) for name, values in trainer._metrics["train"].items()}
    refuse_nonlinear_loss(trainer, batch)
    assert metrics == trainer._metrics["train"], "the probe must leave no metrics"
    assert trainer.model.training

    original = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: original(
        model, {**inputs, "advantages": inputs["advantages"].square().sum(-1).sqrt()}
    )
    with pytest.raises(InputError, match="linear in advantages"):
        refuse_nonlinear_loss(trainer, batch)
