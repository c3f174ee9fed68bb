"""FlowGRPOTrainer against TRL's own trainer and against a loss written by hand."""

import functools
import inspect
import json
import re
from dataclasses import dataclass

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from flowtracer.credit import Signals, make_credit, of_text, reads_of
from flowtracer.errors import InputError
from flowtracer.rl.loss_probe import WITH_ONE_RATIO, refuse_blind_loss
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer, Overheard
from sampling import assert_same_readings
from tiny import tiny_tokenizer
from trainers import RESPONSES, Answering, every_other, make_trainer, rows, saved_model, saying, vowels, weights_of

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own


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
    trainer = make_trainer(tmp_path, credit=every_other, loss_type=loss_type)
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


LOSSES = ["grpo", "dapo", "dr_grpo", "bnpo", "luspo", "cispo", "sapo", "vespo"]
CREDITED = [("token", loss) for loss in LOSSES] + [("sequence", loss) for loss in WITH_ONE_RATIO]


def test_every_loss_of_trl_is_known():
    source = inspect.getsource(GRPOTrainer._compute_loss)
    branches = re.findall(r"self\.loss_type (?:==|in) (.+?):", source)
    assert {name for branch in branches for name in re.findall(r'"(\w+)"', branch)} == set(LOSSES)


@pytest.mark.parametrize(("level", "loss_type"), CREDITED)
def test_a_tokens_advantage_moves_that_token_alone_and_in_proportion(tmp_path, level, loss_type):
    options = {"loss_type": loss_type, "importance_sampling_level": level}
    trainer = make_trainer(tmp_path, credit=every_other, **options)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]

    def gradient(loss):
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None]).double()

    for token in (0, 5):
        advantages_BR = torch.zeros(batch["completion_ids"].shape)
        advantages_BR[1, token] = 1.0
        ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], 1)[1:2] for x in ("ids", "mask"))
        place = batch["prompt_ids"].shape[1] + token
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[0, place - 1]
        own = gradient(logits.log_softmax(-1)[ids[0, place]])
        one, three, against = (
            gradient(trainer.compute_loss(trainer.model, {**batch, "advantages": factor * advantages_BR}))
            for factor in (1, 3, -2)
        )
        assert float(torch.cosine_similarity(one, -own, dim=0)) > 1 - 1e-5
        assert float((three - 3 * one).norm()) < 1e-4 * float(three.norm())
        assert float((against + 2 * one).norm()) < 1e-4 * float(against.norm())


@pytest.mark.parametrize("loss_type", sorted({*LOSSES} - {*WITH_ONE_RATIO}))
def test_one_ratio_a_sequence_is_refused_where_it_loses_credit(tmp_path, loss_type):
    options = {"loss_type": loss_type, "importance_sampling_level": "sequence"}
    with pytest.raises(InputError, match=f'"sequence" .GSPO. with loss_type=\'{loss_type}\'.*choose "token"'):
        make_trainer(tmp_path, **options)
    trainer = make_trainer(tmp_path, GRPOTrainer, GRPOConfig, **options)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    with pytest.raises(InputError, match="each moving its own token alone"):
        refuse_blind_loss(trainer, batch)


def test_a_run_that_was_interrupted_ends_the_same(tmp_path):
    whole = make_trainer(tmp_path / "a", credit=every_other, max_steps=4)
    whole.train()
    first = make_trainer(tmp_path / "b", credit=every_other, max_steps=4, save_strategy="steps", save_steps=2)
    first.train()
    again = make_trainer(tmp_path / "b", credit=every_other, max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-2"))
    expected, got = weights_of(whole), weights_of(again)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def sampled_advantages(tmp_path, credit, **options):
    """Per-token advantages of one batch, with the signals that the strategy saw."""
    seen = []

    def spy(signals):
        seen.append(signals)
        return credit(signals)

    spy.reads = reads_of(credit)
    trainer = make_trainer(tmp_path, Answering, credit=spy, **options)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    return batch, seen[0], trainer


@pytest.mark.parametrize("name", sorted(of_text()))
def test_every_strategy_trains_by_name(tmp_path, name):
    trainer = make_trainer(
        tmp_path, Answering, functools.partial(FlowGRPOConfig, credit=name), max_steps=1, max_completion_length=40
    )
    start = weights_of(trainer)
    trainer.train()
    end = weights_of(trainer)
    assert any(not torch.equal(start[key], end[key]) for key in start), "nothing was learned"
    assert all(value.isfinite().all() for value in end.values())
    assert all(value == value for value in trainer.state.log_history[0].values()), "no NaN is logged"


@pytest.mark.parametrize("name", sorted(of_text()))
def test_every_strategy_sees_what_it_needs_and_gives_finite_advantages(tmp_path, name):
    credit = make_credit(name)
    batch, signals, _ = sampled_advantages(tmp_path, credit)
    advantages_BR = batch["advantages"]
    assert advantages_BR.shape == batch["completion_ids"].shape
    assert advantages_BR.isfinite().all()
    assert signals.mask_BR.sum() > 20
    torch.testing.assert_close(advantages_BR, credit(signals))
    if name not in ("uniform", "nthr"):  # nthr spares what right responses share, and here they share nothing
        assert not torch.equal(advantages_BR, signals.weighted(torch.ones(advantages_BR.shape)))


def test_flow_trains_by_its_capacity_and_its_graph(tmp_path):
    options = {"capacity": "alti", "graph": "layered"}
    config = functools.partial(FlowGRPOConfig, credit="flow", credit_options=options)
    trainer = make_trainer(tmp_path, Answering, config, max_steps=1, max_completion_length=40)
    start = weights_of(trainer)
    trainer.train()
    end = weights_of(trainer)
    assert any(not torch.equal(start[key], end[key]) for key in start), "nothing was learned"
    assert trainer.state.log_history[0]["credit/own_forward"] > 0, "values are none of what generation shows"
    tracer = trainer._tracer()
    assert (tracer.capacity, tracer.graph, tracer.ends, tracer.at) == ("alti", "layered", "anywhere", "prediction")


def test_progress_pays_reward_above_the_groups_mean_and_scored_progress(tmp_path):
    credit = make_credit("progress", {"cut_share": 0.4, "cuts_per_segment": 2})
    batch, signals, _ = sampled_advantages(tmp_path, credit)
    rewards = torch.tensor(vowels(RESPONSES))
    torch.testing.assert_close(signals.group.rewards_B, rewards)
    torch.testing.assert_close(signals.group.baselines_B, rewards.mean().expand(4))
    assert signals.group.groups_B.tolist() == [0, 0, 0, 0]
    segments_BR, ends_BR = credit.cut(signals)
    start_B, behind_BR = (log_p.exp() for log_p in signals.gold.score(ends_BR, credit.cue))
    for row in range(4):
        reached = [float(start_B[row]), *behind_BR[row][ends_BR[row]].tolist()]
        for t in signals.mask_BR[row].nonzero().squeeze(-1).tolist():
            k = int(segments_BR[row, t])
            expected = float(rewards[row] - rewards.mean()) + 1.2 * (reached[k + 1] - reached[k])
            assert float(batch["advantages"][row, t]) == pytest.approx(expected, abs=1e-5)


def test_grail_pays_the_box_five_times_and_blames_only_without_advantage(tmp_path):
    batch, signals, _ = sampled_advantages(tmp_path, make_credit("grail"))
    factors_BR = batch["advantages"] / signals.advantages_B[:, None]
    assert signals.answer.answer_BR.any(-1).tolist() == [True, True, False, True]
    torch.testing.assert_close(
        factors_BR[signals.answer.answer_BR], torch.full((int(signals.answer.answer_BR.sum()),), 5.0)
    )
    for row in range(4):
        blamed_R = factors_BR[row][signals.answer.reasoning_BR[row]]
        if signals.advantages_B[row] > 0:
            torch.testing.assert_close(blamed_R, torch.ones_like(blamed_R))
        elif len(blamed_R) > 2:
            assert blamed_R.std() > 0.1
    torch.testing.assert_close(factors_BR[2], torch.ones_like(factors_BR[2]))


def test_the_gold_answer_must_be_in_the_data(tmp_path):
    trainer = make_trainer(tmp_path, credit=make_credit("likelihood_gain"))
    trainer.model.train()
    with pytest.raises(InputError, match='column "gold"'):
        trainer._generate_and_score_completions([{"prompt": "what is 3 + 4?"}] * 4)


def test_normalised_advantages_keep_their_size(tmp_path):
    batch, signals, _ = sampled_advantages(tmp_path, every_other, credit_normalise=True)
    size_B = (batch["advantages"].abs() * signals.mask_BR).sum(-1) / signals.mask_BR.sum(-1)
    torch.testing.assert_close(size_B, signals.advantages_B.abs())


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
        ({"credit_options": {"at": "sentence"}}, "at among token, prediction"),
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


def test_a_generation_over_budget_takes_an_own_forward_and_says_so(tmp_path):
    trainer = make_trainer(
        tmp_path, credit=make_credit("flow"), max_completion_length=60, credit_generation_bytes=20_000
    )
    saying(trainer, RESPONSES)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "credit/own_forward" in line]
    assert [(line["credit/own_forward"], line["credit/lost/over_budget"]) for line in lines] == [(0.75, 1.0)] * 2


def test_arguments_may_be_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # TRL's own default for its output

    @dataclass
    class OnCpu(FlowGRPOConfig):
        use_cpu: bool = True
        bf16: bool = False

    monkeypatch.setattr("flowtracer.rl.trl_trainer.FlowGRPOConfig", OnCpu)
    data = Dataset.from_list(rows())
    trainer = FlowGRPOTrainer(saved_model(), vowels, train_dataset=data, processing_class=tiny_tokenizer())
    assert isinstance(trainer.args, OnCpu)
    assert trainer.args.output_dir == f"{saved_model().rpartition('/')[2]}-GRPO", "as TRL names it"
    assert trainer.credit.gamma == make_credit("flow").gamma


def test_what_fails_in_the_model_is_not_blamed_on_trl(tmp_path):
    trainer = make_trainer(tmp_path, credit=every_other)
    trainer.model.train()
    batch = GRPOTrainer._generate_and_score_completions(trainer, [trainer.train_dataset[0]] * 4)

    def forward(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory left")

    trainer.model.forward = forward
    with pytest.raises(torch.OutOfMemoryError):
        refuse_blind_loss(trainer, batch)
    assert trainer.model.training


def test_a_loss_that_flattens_advantages_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, credit=every_other)
    trainer.model.train()
    batch = GRPOTrainer._generate_and_score_completions(trainer, [trainer.train_dataset[0]] * 4)
    metrics = {name: list(values) for name, values in trainer._metrics["train"].items()}
    refuse_blind_loss(trainer, batch)
    assert metrics == trainer._metrics["train"], "the probe must leave no metrics"
    assert trainer.model.training

    original = trainer._compute_loss
    trainer._compute_loss = lambda model, inputs: original(
        model, {**inputs, "advantages": inputs["advantages"].square().sum(-1).sqrt()}
    )
    with pytest.raises(InputError, match="linear in advantages"):
        refuse_blind_loss(trainer, batch)

    def sums(model, inputs):  # the gradient of each token is that of the sum, and the value what it should be
        _, per_token = (
            inputs["completion_ids"].shape,
            trainer._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
                inputs["completion_ids"].shape[1],
            ),
        )
        return -(per_token[0].mean() * inputs["advantages"]).sum()

    trainer._compute_loss = sums
    with pytest.raises(InputError, match="each moving its own token alone"):
        refuse_blind_loss(trainer, batch)
    trainer._compute_loss = lambda model, inputs: inputs["advantages"].sum().requires_grad_()
    with pytest.raises(InputError, match="by _get_per_token_logps_and_entropies"):
        refuse_blind_loss(trainer, batch)


SEVERAL_STEPS = [
    {"num_iterations": 2},
    {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 2},
    {"steps_per_generation": 2, "gradient_accumulation_steps": 1, "beta": 0.04},
]
"""A generation that serves several optimiser steps needs the policy's log-probabilities as they were."""


@pytest.mark.parametrize("options", SEVERAL_STEPS)
def test_uniform_is_grpo_to_the_bit_over_several_steps(tmp_path, options):
    plain = make_trainer(tmp_path / "a", GRPOTrainer, GRPOConfig, **options)
    plain.train()
    ours = make_trainer(tmp_path / "b", credit=make_credit("uniform"), **options)
    ours.train()
    theirs, mine = weights_of(plain), weights_of(ours)
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)


@pytest.mark.parametrize("options", SEVERAL_STEPS)
@pytest.mark.parametrize("name", ["flow", "local", "attention_entropy", "entropy"])
def test_credit_rides_on_the_pass_that_computes_old_log_probabilities(tmp_path, name, options):
    passes, heard = [], []

    class Counting(Answering):
        def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
            found = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
            if self.model.training and model is self.model and not torch.is_grad_enabled():
                passes.append(found[0])
            return found

    def spy(signals):
        heard.append(signals)
        return credit(signals)

    credit = make_credit(name)
    spy.reads = credit.reads
    trainer = make_trainer(tmp_path, Counting, credit=spy, **options)
    trainer.model.train()
    rows = [trainer.train_dataset[i // 4] for i in range(8)]
    batch = trainer._generate_and_score_completions(rows)
    assert trainer._metrics["train"]["credit/own_forward"] == [0]
    assert batch["old_per_token_logps"] is passes[-1]

    riding = heard[-1]
    readings, _ = trainer._signals(batch, rows, riding.seeds_B, Overheard(hears_generation=False))
    assert_same_readings(riding.readings, readings)


def test_a_reference_model_is_not_ridden_on(tmp_path):
    trainer = make_trainer(tmp_path, Answering, credit=make_credit("flow"), beta=0.04)
    with torch.no_grad():
        for parameter in trainer.ref_model.parameters():
            parameter.zero_()
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    assert "ref_per_token_logps" in batch
    assert "old_per_token_logps" not in batch
    assert trainer._metrics["train"]["credit/own_forward"] == [0.75], "one response has no answer"
    assert trainer._metrics["train"]["credit/flow_in_boosted"][0] > 0.4


@pytest.mark.parametrize(("name", "share"), [("flow", 0), ("coupled", 0.25), ("uniform", 0), ("entropy", 1)])
def test_credit_reads_attention_off_generation(tmp_path, name, share):
    trainer = make_trainer(tmp_path, credit=make_credit(name), max_completion_length=60)
    saying(trainer, RESPONSES)
    rows = [trainer.train_dataset[i // 4] for i in range(4)]
    trainer._generate_and_score_completions(rows)
    batch = trainer._generate_and_score_completions(rows)
    # The longest response's last token was never taken in, and scores of all rows need its row too.
    assert trainer._metrics["train"]["credit/own_forward"] == [share, share]
    own = batch["advantages"].clone()
    mask_BR = batch["completion_mask"].bool()
    seeds_B = tuple(range(4))
    readings, _ = trainer._signals(batch, rows, seeds_B, Overheard(hears_generation=False))
    signals = Signals(mask_BR=mask_BR, advantages_B=own[:, -1], seeds_B=seeds_B, readings=readings)
    assert trainer._reader().own_forward == {"flow": 0.75, "coupled": 1}.get(name, share)
    factors_BR, expected_BR = own.abs(), trainer.credit(signals).abs()
    torch.testing.assert_close(factors_BR / own[:, :1].abs(), expected_BR / expected_BR[:, :1])


def test_the_weights_are_those_of_own_forwards(tmp_path):
    """Where credit reads attention changes no more than rounding does, and no draw."""

    class Deaf(FlowGRPOTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            self._overheard.hears_generation = False
            return super()._generate_single_turn(*args, **kwargs)

    ends = []
    for cls in (FlowGRPOTrainer, Deaf):
        trainer = make_trainer(tmp_path / cls.__name__, cls, credit=make_credit("flow"), max_completion_length=60)
        saying(trainer, RESPONSES)
        trainer.train()
        ends.append(weights_of(trainer))
        shares = [line["credit/own_forward"] for line in trainer.state.log_history if "credit/own_forward" in line]
        assert shares == [0.75 if cls is Deaf else 0] * 2
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
