"""FlowGRPOTrainer over prompts with images, on tiny models of every family that TRL trains."""

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from flowtracer.credit import CREDITS, NEEDS, Signals, make_credit, needs_of
from flowtracer.errors import CaptureError, InputError
from flowtracer.rl.images import refuse_in_responses
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer, Overheard
from flowtracer.signals.images import FIELDS, TOKEN_KINDS
from sampling import assert_same_readings
from tiny_vlm import BOTH_WAYS, picture, sampled_of, tiny_vlm
from trainers import saying

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own

ONE_A_NEED = (
    *("flow", "attention", "coupled", "entropy", "delta", "nthr", "gradient", "oar"),
    *("visual_mask", "visual_robust"),
)
ASKING_FOR_GOLD = sorted(name for name in CREDITS if needs_of(make_credit(name)) & {"gain", "gold"})
RESPONSES = [r"a e i u = 7, so \boxed{7}. A", "so 3 + 4 = 9.\nSo it is \\boxed{9}", "no idea, a e i", r"\boxed{12}"]


def vowels(completions, **_):
    """A reward that differs from response to response."""
    return [sum(c[0]["content"].count(v) for v in "aeiou") / 10 for c in completions]


def rows():
    """Every other prompt is the same but for its picture, and every third picture is wide."""
    return [
        {
            "prompt": [{"role": "user", "content": "what is 3 + 4?" + " x" * (n % 2)}],
            "image": picture(n, 28, 56 if n % 3 == 1 else 28),
            "gold": "7",
        }
        for n in range(8)
    ]


class Answering(FlowGRPOTrainer):
    """Samples as a tiny model cannot: every response has reasoning and, but for one, an answer in a box."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        ids, *rest = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        made = [self._tokenizer(text)["input_ids"] for text in RESPONSES]
        return [[*made[i % 4], self._tokenizer.eos_token_id] for i in range(len(ids))], *rest


def make_trainer(tmp_path, family="qwen2_5_vl", cls=Answering, config=FlowGRPOConfig, *, data=None, **options):
    vlm = tiny_vlm(family)
    extra = {"credit": options.pop("strategy")} if "strategy" in options else {}
    arguments = config(
        output_dir=str(tmp_path),
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 6,
            "max_steps": 1,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 3,
            # A random model would else say that here is an image.
            "generation_kwargs": {"suppress_tokens": [vlm.image_token]},
            **options,
        },
    )
    return cls(
        model=vlm.model.train(),
        processing_class=vlm.processor,
        args=arguments,
        train_dataset=Dataset.from_list(rows()) if data is None else data,
        reward_funcs=[vowels],
        **extra,
    )


def weights_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def test_uniform_is_grpo_to_the_bit(tmp_path):
    plain = make_trainer(tmp_path / "a", cls=GRPOTrainer, config=GRPOConfig, num_iterations=2, max_steps=2)
    start = weights_of(plain)
    plain.train()
    options = {"strategy": make_credit("uniform"), "num_iterations": 2, "max_steps": 2}
    ours = make_trainer(tmp_path / "b", cls=FlowGRPOTrainer, **options)
    ours.train()
    theirs, mine = weights_of(plain), weights_of(ours)
    assert any(not torch.equal(start[name], theirs[name]) for name in start), "nothing was learned"
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)


@pytest.mark.parametrize("name", ONE_A_NEED)
def test_every_strategy_trains_with_images(tmp_path, name):
    trainer = make_trainer(tmp_path, credit=name)
    start = weights_of(trainer)
    trainer.train()
    end = weights_of(trainer)
    assert any(not torch.equal(start[key], end[key]) for key in start), "nothing was learned"
    assert all(value.isfinite().all() for value in end.values())
    assert all(value == value for value in trainer.state.log_history[0].values()), "no NaN is logged"


def test_every_need_is_there():
    assert set().union(*(needs_of(make_credit(name)) for name in [*ONE_A_NEED, *ASKING_FOR_GOLD])) == set(NEEDS)


def passes_of(trainer, names):
    """What the policy's forwards without gradients are given, from now on."""
    heard = []

    def listen(module, args, kwargs):
        if not torch.is_grad_enabled() and kwargs.get("use_cache") is not True:
            heard.append({name: kwargs[name] for name in names if kwargs.get(name) is not None})

    trainer.model.register_forward_pre_hook(listen, with_kwargs=True)
    return heard


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm", "llava"])
def test_own_forwards_are_given_what_trls_pass_is_and_read_the_same(tmp_path, family):
    """The pass that computes old log-probabilities is ridden on; own forwards over the same slices must agree."""
    seen = []

    def spy(signals):
        seen.append(signals)
        return signals.weighted(torch.ones(signals.mask_BR.shape))

    spy.needs = {"flow", "attention", "heads", "logits"}
    options = {"num_iterations": 2, "steps_per_generation": 2, "per_device_train_batch_size": 2}
    trainer = make_trainer(tmp_path, family, strategy=spy, **options)
    trainer.model.train()
    rows = [trainer.train_dataset[n // 4] for n in range(8)]
    trainer._generate_and_score_completions(rows)  # readers prove themselves once
    trainer._metrics["train"].clear()
    names = ("input_ids", "attention_mask", *FIELDS)
    heard = passes_of(trainer, names)
    batch = trainer._generate_and_score_completions(rows)
    assert trainer._metrics["train"]["credit/own_forward"] == [0]
    theirs = [given for given in heard if given["input_ids"].shape[1] > batch["prompt_ids"].shape[1]]
    assert len(theirs) == 4, "two sequences each"
    readings, _ = trainer._signals(batch, rows, seen[-1].seeds_B, Overheard(hears_generation=False))
    assert_same_readings(seen[-1].readings, readings)

    own = [sampled_of(batch).few(torch.tensor([n, n + 1])) for n in range(0, 8, 2)]
    for few, given in zip(own, theirs, strict=True):
        assert set(few.inputs()) == set(given)
        for name, value in few.inputs().items():
            # Columns that hold only padding are cut off in front.
            columns = slice(few.cut, None) if name in ("input_ids", "attention_mask", *TOKEN_KINDS) else slice(None)
            assert torch.equal(value, given[name][:, columns]), name


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_flow_is_read_off_generation(tmp_path, family):
    trainer = make_trainer(tmp_path, family, cls=FlowGRPOTrainer, max_completion_length=60, credit="flow")
    saying(trainer, RESPONSES)
    rows = [trainer.train_dataset[n] for n in (0, 2, 4, 6)]  # the same tokens, other pictures
    batch = trainer._generate_and_score_completions(rows)
    assert trainer._metrics["train"]["credit/own_forward"] == [0]
    assert len({tuple(ids) for ids in batch["prompt_ids"].tolist()}) < 4
    seeds_B = tuple(range(4))
    readings, _ = trainer._signals(batch, rows, seeds_B, Overheard(hears_generation=False))
    assert trainer._reader().own_forward == 0.75, "one response has no answer"
    signals = Signals(
        mask_BR=batch["completion_mask"].bool(), advantages_B=torch.ones(4), seeds_B=seeds_B, readings=readings
    )
    factors_BR = batch["advantages"] / batch["advantages"][:, -1:]
    torch.testing.assert_close(factors_BR, trainer.credit(signals))


def test_images_that_are_seen_from_both_ways_are_refused_for_what_reads_attention(tmp_path):
    trainer = make_trainer(tmp_path, BOTH_WAYS, credit="flow")
    with pytest.raises(CaptureError, match="tokens of an image attend to later ones"):
        trainer.train()
    make_trainer(tmp_path / "b", BOTH_WAYS, credit="entropy").train()


@pytest.mark.parametrize("name", ASKING_FOR_GOLD)
def test_what_asks_for_the_gold_answer_is_refused_when_the_trainer_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r"images in the column image: (gain|gold) is read behind prompts"):
        make_trainer(tmp_path, credit=name)


def test_traces_and_images_in_rows_videos_and_responses_are_refused(tmp_path):
    with pytest.raises(InputError, match="traces of a training are of text alone; set trace_steps=0"):
        make_trainer(tmp_path, trace_steps=1)
    plain = Dataset.from_list([{"prompt": [{"role": "user", "content": "what is 3 + 4?"}], "gold": "7"}] * 4)
    trainer = make_trainer(tmp_path, data=plain, credit="progress")
    trainer.model.train()
    trainer._generate_and_score_completions([plain[0]] * 4)  # a model of images may train on text
    for part in ({"type": "image", "image": picture(1)}, {"type": "video", "video": "x"}):
        row = {"prompt": [{"role": "user", "content": [part]}], "gold": "7"}
        with pytest.raises(InputError, match=r"gold is read behind prompts|got a video"):
            trainer._generate_and_score_completions([row] * 4)
    batch = {"completion_ids": torch.tensor([[5, 9]]), "completion_mask": torch.tensor([[1, 1]])}
    refuse_in_responses(batch, 8)
    with pytest.raises(InputError, match="got one in a response"):
        refuse_in_responses(batch, 9)
