"""Traces kept while training: what they say entered the loss did, and training does not notice."""

import json
import re
import zlib

import numpy as np
import pytest
import torch
from datasets import Dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from flowtracer.errors import InputError
from flowtracer.rl.trackers import _pages
from flowtracer.rl.training_traces import TraceKeeper, TrainedBatch
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from flowtracer.trace.trace import Rollout, load_trace
from flowtracer.tracing.tracer import Tracer
from tiny import tiny_model, tiny_tokenizer
from tolerances import assert_close

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own

PROMPTS = [f"what is {n} + 4?" for n in range(6)]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny model that has learned to answer each prompt in several ways: they can be traced, and rewards differ."""
    model, tokenizer = tiny_model(num_hidden_layers=3, seed=1), tiny_tokenizer()
    texts = [f"{prompt} {n} + 4 = {n + 4}.\nA: {n + 4}<|end|>" for prompt in PROMPTS for n in range(6)]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimiser.step()
    folder = tmp_path_factory.mktemp("taught")
    model.save_pretrained(folder)
    return folder


def varied(completions, **_):
    """A reward that differs from text to text."""
    texts = [said if isinstance(said, str) else said[-1]["content"] for said in completions]
    return [zlib.crc32(text.encode()) % 7 / 7 for text in texts]


def make_trainer(taught, folder, *, columns=None, **options):
    arguments = FlowGRPOConfig(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 24,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 3,
            "credit_options": {"ratio": 0.3, "gamma": 2.0},
            **options,
        },
    )
    return FlowGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(taught),
        processing_class=tiny_tokenizer(),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": prompt, **(columns or {})} for prompt in PROMPTS]),
        reward_funcs=[varied],
    )


def record_loss(trainer):
    """What enters the loss, by the tokens of the response."""
    entered = {}
    compute = trainer._compute_loss

    def recording(model, inputs):
        for ids, mask, advantages in zip(
            inputs["completion_ids"], inputs["completion_mask"].bool(), inputs["advantages"], strict=True
        ):
            entered.setdefault(trainer.state.global_step, {})[tuple(ids[mask].tolist())] = advantages[mask].clone()
        return compute(model, inputs)

    trainer._compute_loss = recording
    return entered


def kept_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def test_what_a_trace_says_entered_the_loss_did(taught, tmp_path):
    trainer = make_trainer(taught, tmp_path, trace_steps=2, trace_prompts=2)
    trainer._probed = True  # the probe's losses are no training
    entered = record_loss(trainer)
    trainer.train()
    folder = tmp_path / "traces"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000000", "step-000002"]
    learned_from = []
    for file in folder.rglob("*.safetensors"):
        trace = load_trace(file)
        step = int(file.parent.name.removeprefix("step-"))
        assert (trace.metadata["id"], trace.metadata["step"]) == (file.stem, step)
        if trace.trained is None:
            assert file.stem.startswith("prompt-"), "what was not trained on is an answer to a fixed prompt"
            continue
        learned_from.append(trace.trained.advantage)
        first = trace.response.start
        expected = entered[step][tuple(trace.token_ids[first:].tolist())].numpy()
        np.testing.assert_array_equal(trace.trained.token_advantage[first:], expected)
        np.testing.assert_allclose(trace.trained.factor[first:] * trace.trained.advantage, expected, rtol=1e-6)
        assert not trace.trained.token_advantage[:first].any()
        assert set(np.round(trace.trained.factor[first:], 5)) <= {1.0, 2.0}
        assert trace.metadata["reward"] == pytest.approx(
            varied([trace.slice_text(trace.response)[: -len("<|end|>")]])[0]
        )
    assert sum(advantage != 0 for advantage in learned_from) >= 3, learned_from


def test_fixed_prompts_are_there_at_every_kept_step(taught, tmp_path):
    make_trainer(taught, tmp_path, trace_steps=2, trace_prompts=2).train()
    for step in ("step-000000", "step-000002"):
        folder = tmp_path / "traces" / step
        skipped = folder / "skipped.jsonl"
        names = [path.stem for path in folder.glob("*.safetensors")]
        names += [json.loads(line)["id"] for line in skipped.read_text().splitlines()] if skipped.exists() else []
        for number in (0, 1):
            mine = sorted(name for name in names if name.startswith(f"prompt-{number:02d}"))
            assert mine in ([f"prompt-{number:02d}-r00"], [f"prompt-{number:02d}-r{n:02d}" for n in range(4)])
        for file in folder.glob("prompt-*.safetensors"):
            trace = load_trace(file)
            assert trace.slice_text(trace.question) == PROMPTS[trace.metadata["prompt"]]


def test_training_does_not_notice(taught, tmp_path):
    weights = []
    for folder, every in (("with", 1), ("without", 0)):
        trainer = make_trainer(taught, tmp_path / folder, trace_steps=every)
        trainer.train()
        weights.append(dict(trainer.model.named_parameters()))
        seconds = [line for line in trainer.state.log_history if "traces/seconds" in line]
        assert len(seconds) == (4 if every else 0)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (tmp_path / "without" / "traces").exists()


def test_an_interrupted_run_keeps_the_same(taught, tmp_path):
    make_trainer(taught, tmp_path / "whole", trace_steps=2).train()
    first = make_trainer(taught, tmp_path / "parts", trace_steps=2, save_strategy="steps", save_steps=1)
    stop_after(first, 3)
    again = make_trainer(taught, tmp_path / "parts", trace_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    whole, parts = tmp_path / "whole" / "traces", tmp_path / "parts" / "traces"
    assert kept_in(whole) == kept_in(parts)
    for name in kept_in(whole):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def stop_after(trainer, steps):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == steps

    trainer.add_callback(Stop())
    trainer.train()


def test_tensorboard_gets_figures(taught, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "log"))
    make_trainer(taught, tmp_path, trace_steps=2, report_to=["tensorboard"], max_steps=1).train()
    (file,) = (tmp_path / "log").rglob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert events.Tags()["images"] == sorted(
        f"traces/{path.stem}" for path in (tmp_path / "traces" / "step-000000").glob("*.safetensors")
    )
    assert events.Tags()["images"]


def test_pages_are_whole(taught):
    trace = Tracer(AutoModelForCausalLM.from_pretrained(taught), tiny_tokenizer()).trace("what is 1 + 4?", "A: 5")
    pages = _pages(lambda page, inject: (page, inject), {"prompt-00-r00": trace})
    page, inject = pages["traces/prompt-00-r00"]
    assert page.lower().startswith("<!doctype html>")
    assert inject is False


@pytest.fixture
def keeper(taught, tmp_path):
    tracer = Tracer(AutoModelForCausalLM.from_pretrained(taught), tiny_tokenizer())
    return TraceKeeper(tracer, tmp_path / "traces", PROMPTS[:1], encode, every=5, max_new_tokens=24)


def encode(prompts):
    return tiny_tokenizer()(prompts)["input_ids"]


def batch_of(prompts, responses, advantages):
    tokenizer = tiny_tokenizer()
    asked = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    said = tokenizer(responses, padding=True, padding_side="right", return_tensors="pt")
    mask = said["attention_mask"].bool()
    own = torch.tensor(advantages)
    counted = mask.clone()
    counted[:, 1] = False
    factors = 1 + torch.arange(mask.shape[1]) / 8
    return TrainedBatch(
        prompts=prompts,
        prompt_ids_BP=asked["input_ids"],
        prompt_mask_BP=asked["attention_mask"],
        response_ids_BR=said["input_ids"],
        response_mask_BR=said["attention_mask"],
        counted_BR=counted,
        rewards_B=torch.arange(len(prompts)).float(),
        advantages_B=own,
        advantages_BR=own[:, None] * factors,
    )


def test_of_a_batch_the_fixed_prompts_and_the_first_are_kept(keeper, tmp_path):
    prompts = ["first", PROMPTS[0], "other", "first"]
    responses = ["so A\nA: 3<|end|>", "1 + 2 = 3.\nA: 3<|end|>", "A: 9<|end|>", "no idea<|end|>"]
    traces = keeper.keep(5, batch_of(prompts, responses, [0.5, -2.0, 1.0, 0.0]))
    assert sorted(traces) == ["batch-r00", "prompt-00-r00"]
    trace = traces["prompt-00-r00"]
    assert trace.slice_text(trace.response) == responses[1]
    assert (trace.trained.step, trace.trained.advantage, trace.metadata["reward"]) == (5, -2.0, 1.0)
    counted = np.arange(len(trace.response)) != 1
    expected = np.where(counted, 1 + np.arange(len(trace.response)) / 8, 0)
    np.testing.assert_allclose(trace.trained.factor[trace.response.start :], expected)
    np.testing.assert_allclose(trace.trained.token_advantage[trace.response.start :], -2 * expected)
    skipped = (tmp_path / "traces" / "step-000005" / "skipped.jsonl").read_text().splitlines()
    assert [(json.loads(line)["id"], json.loads(line)["reason"]) for line in skipped] == [("batch-r01", "no_answer")]


def test_a_response_without_an_advantage_has_plain_factors(keeper):
    traces = keeper.keep(0, batch_of([PROMPTS[0]], ["1 + 2 = 3.\nA: 3<|end|>"], [0.0]))
    trained = traces["prompt-00-r00"].trained
    assert not trained.token_advantage.any()
    assert set(trained.factor) == {0.0, 1.0}


def test_a_fixed_prompt_out_of_the_batch_is_answered_greedily(keeper):
    state = torch.get_rng_state()
    traces = keeper.keep(0, batch_of(["first"], ["A: 3<|end|>"], [1.0]))
    assert torch.equal(state, torch.get_rng_state()), "no random number was drawn"
    trace = traces["prompt-00-r00"]
    assert trace.trained is None
    assert re.fullmatch(r" \d \+ 4 = \d\.\nA: \d<\|end\|>", trace.slice_text(trace.response))


def test_steps_are_due_once(keeper):
    nothing = batch_of(["first"], ["A: 3<|end|>"], [1.0])
    assert keeper.due(0)
    keeper.keep(0, nothing)
    assert [step for step in range(1, 8) if keeper.due(step)] == [5, 6, 7]
    keeper.keep(6, nothing)  # nothing was generated at step 5
    assert not keeper.due(7)
    assert not keeper.due(9)
    assert keeper.due(10)


def test_what_a_folder_holds_is_known_after_a_break(keeper, tmp_path):
    nothing = batch_of(["first"], ["A: 3<|end|>"], [1.0])
    for step in (0, 6, 10):
        keeper.keep(step, nothing)

    def anew():
        return TraceKeeper(keeper._tracer, tmp_path / "traces", [], encode, every=5, max_new_tokens=4)

    assert not anew().due(8), "6 stands for 5"
    assert anew().due(15)
    assert not anew().due(12)
    assert anew().due(0), "a run from the start keeps its own"


def test_prompts_are_encoded_as_the_trainer_encodes_them(taught, tmp_path):
    """An assistant's message that is already begun, too."""
    begun = [{"role": "user", "content": "what is 1 + 4?"}, {"role": "assistant", "content": "1 + 4 ="}]
    trainer = make_trainer(taught, tmp_path, columns={"prompt": begun}, trace_steps=1, trace_prompts=1, max_steps=1)
    sent = []
    generate = trainer._generate_single_turn
    trainer._generate_single_turn = lambda ids, *rest: sent.append(list(ids[0])) or generate(ids, *rest)
    trainer.train()
    keeper = trainer._keeper
    assert keeper._encode(keeper._prompts) == [sent[0]]


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ({"trace_steps": -1}, {}, "at least 0"),
        ({"trace_steps": 1, "trace_prompts": -1}, {}, "at least 0"),
        ({"trace_steps": 1}, {"image": "x"}, "prompts in text, got images in the column image"),
    ],
)
def test_what_cannot_be_kept_is_refused(taught, tmp_path, options, columns, message):
    with pytest.raises(InputError, match=message):
        make_trainer(taught, tmp_path, columns=columns, **options)


def test_an_answer_is_traced_as_by_a_forward_over_it(keeper):
    """Attention kept of the generation gives the trace that the tracer's own forward gives."""
    keeper._prompts = ["what is 10 + 4?", *PROMPTS[:3]]  # shorter ones are padded
    traces = keeper.keep(0, batch_of(["first"], ["so A\nA: 3<|end|>"], [0.5]))
    answers = {name: trace for name, trace in traces.items() if name.startswith("prompt-")}
    assert len(answers) >= 3
    assert keeper.own_forward == pytest.approx(1 / len(traces)), "the response of the batch alone"
    for trace in answers.values():
        first = trace.response.start
        sampled = Rollout(
            prompt="", response="", token_ids=(trace.token_ids[:first].tolist(), trace.token_ids[first:].tolist())
        )
        (expected,) = keeper._tracer.trace_batch([sampled])
        assert_close(torch.from_numpy(trace.flow), torch.from_numpy(expected.flow), torch.float32)
        assert_close(torch.from_numpy(trace.step_flow), torch.from_numpy(expected.step_flow), torch.float32)


def test_a_pass_that_ended_too_early_is_refused(keeper):
    tracer = keeper._tracer
    ids = tiny_tokenizer()("what is 1 + 4? A: 5")["input_ids"]
    layers = tracer.reader.read(torch.tensor([ids[:-2]]))
    with pytest.raises(InputError, match="expected attention of at least"):
        tracer.trace_attention(Rollout(prompt="what is 1 + 4?", response=" A: 5"), layers)
