"""Credit together with TRL's other options: docs/training.md says no more than what stands here and beside it."""

import copy
from pathlib import Path

import pytest
import torch
import trl
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from flowtracer.credit import make_credit
from flowtracer.errors import InputError
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from tiny import tiny_model, tiny_tokenizer
from trainers import RESPONSES, make_trainer, saying, weights_of

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own

OPTIONS = {
    "activations kept": {"gradient_checkpointing": False},
    "gradients accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "KL": {"beta": 0.04},
    "two-sided clipping": {"delta": 5.0},
    "truncated ones masked": {"mask_truncated_completions": True},
    "top entropy alone": {"top_entropy_quantile": 0.5},
    "entropy bonus": {"entropy_coef": 0.01},
    "off-policy mask": {"off_policy_mask_threshold": 0.5},
    "rewards scaled by batch": {"scale_rewards": "batch"},
    "rewards not scaled": {"scale_rewards": "none"},
    "static cache": {"cache_implementation": "static"},
}
TOGETHER = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": False,
    "beta": 0.04,
    "delta": 5.0,
    "mask_truncated_completions": True,
    "top_entropy_quantile": 0.5,
    "entropy_coef": 0.01,
    "off_policy_mask_threshold": 0.5,
    "scale_rewards": "batch",
}
STEP = {"max_completion_length": 60, "max_steps": 1, "optim": "sgd", "learning_rate": 1.0}


def step(tmp_path, cls=FlowGRPOTrainer, config=FlowGRPOConfig, **options):
    """A trainer after a step on responses that answer, but for one, and how far the weights moved in it."""
    trainer = make_trainer(tmp_path, cls, config, **STEP, **options)
    saying(trainer, RESPONSES)
    start = weights_of(trainer)
    trainer.train()
    end = weights_of(trainer)
    return trainer, {name: end[name] - start[name] for name in start}


def assert_flow_credited(trainer):
    line = trainer.state.log_history[0]
    assert line["credit/traced"] == 0.75, "one response has no answer"
    assert line["credit/mean_factor"] > 1.1


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_flow_credit_goes_with(tmp_path, options):
    trainer, moved = step(tmp_path, **options)
    assert_flow_credited(trainer)
    assert all(change.isfinite().all() for change in moved.values())
    assert max(float(change.abs().max()) for change in moved.values()) > 1e-3


def test_uniform_is_trls_own_under_many_options_at_once(tmp_path):
    _, plain = step(tmp_path / "plain", GRPOTrainer, GRPOConfig, **TOGETHER)
    _, uniform = step(tmp_path / "uniform", credit=make_credit("uniform"), **TOGETHER)
    assert all(torch.equal(plain[name], uniform[name]) for name in plain)
    _, flow = step(tmp_path / "flow", **TOGETHER)
    assert max(float((flow[name] - plain[name]).abs().max()) for name in plain) > 1e-3


def test_responses_of_another_engine_take_a_forward_of_credits_own(tmp_path):
    tokenizer = tiny_tokenizer()

    def rollouts(prompts, trainer):
        said = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in RESPONSES]
        return {
            "prompt_ids": tokenizer(prompts)["input_ids"],
            "completion_ids": said,
            "logprobs": [[-1.0] * len(ids) for ids in said],
            "env_mask": [[int(place > 2) for place in range(len(ids))] for ids in said],
        }

    trainer = make_trainer(tmp_path, max_steps=1, max_completion_length=60)
    trainer.rollout_func = rollouts
    trainer.model.train()
    out = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    assert trainer._metrics["train"]["credit/own_forward"] == [0.75]
    assert trainer._metrics["train"]["credit/traced"] == [0.75]
    own_B = out["advantages"].abs().amin(-1)
    factors_BR = out["advantages"].abs() / own_B[:, None]
    assert (factors_BR[:, :3] == 1).all(), "what an environment wrote is not weighted"
    assert [int(n) for n in (factors_BR > 1).any(-1)] == [1, 1, 0, 1]


def test_the_liger_kernel_is_refused(tmp_path):
    with pytest.raises(InputError, match="got the Liger kernel"):
        make_trainer(tmp_path, use_liger_kernel=True)


def test_a_trainer_of_unsloths_is_refused(tmp_path):
    unsloths = type("UnslothGRPOTrainer", (GRPOTrainer,), {"__module__": "unsloth_compiled_cache.UnslothGRPOTrainer"})
    patched = type("FlowGRPOTrainer", (FlowGRPOTrainer, unsloths), {})
    with pytest.raises(InputError, match=r"got UnslothGRPOTrainer.*do not import unsloth"):
        make_trainer(tmp_path, patched)


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: The other.

    Returns:
        Their sum.
    """
    return a + b


class Adding:
    """An environment with one tool, which writes a hint into the prompt."""

    def reset(self, **_):
        return "Use the tool."

    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: One.
            b: The other.

        Returns:
            Their sum.
        """
        return add(a, b)


CALL = 'so\n<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
ANSWER = r"it is 3 + 4 = 7, a e: \boxed{7}"


@pytest.mark.parametrize("given", [{"tools": [add]}, {"environment_factory": Adding}], ids=["tools", "environment"])
def test_what_a_tool_wrote_is_no_place_for_credit(tmp_path, given):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    prompt = [{"role": "user", "content": "What is 3 + 4?"}]
    trainer = FlowGRPOTrainer(
        model=tiny_model(max_position_embeddings=4096),
        processing_class=tokenizer,
        reward_funcs=[lambda completions, **_: [float(len(turns)) for turns in completions]],
        args=FlowGRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            num_generations=2,
            max_completion_length=250,
            use_cpu=True,
            bf16=False,
            report_to=[],
        ),
        train_dataset=Dataset.from_list([{"prompt": prompt}] * 4),
        **given,
    )
    turns = []
    speak = trainer.model.generate

    def generate(input_ids, **options):
        turns.append(tokenizer.batch_decode(input_ids))
        said = CALL if "tool_response" not in turns[-1][0] else ANSWER
        ids, width = [*tokenizer(said)["input_ids"], tokenizer.eos_token_id], input_ids.shape[1]

        def allowed(row, sofar):
            place = len(sofar) - width
            return [ids[place] if place < len(ids) else tokenizer.pad_token_id]

        return speak(input_ids=input_ids, prefix_allowed_tokens_fn=allowed, **options)

    trainer.model.generate = generate
    trainer.model.train()
    seen = []
    credit = trainer.credit
    trainer.credit = lambda signals: seen.append(signals) or credit(signals)
    trainer.credit.reads = credit.reads
    out = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 2)
    assert len(turns) == 2, "the call, and the answer behind what the tool gave"
    signals = seen[0]
    assert signals.flow.traced_B.all()
    wrote_BR = out["completion_mask"].bool() & ~out["tool_mask"].bool()
    assert wrote_BR.any(-1).all()
    assert not (signals.mask_BR & wrote_BR).any()
    assert "7" in tokenizer.decode(out["completion_ids"][0][wrote_BR[0]])
    answer_BR = signals.answer.answer_BR
    assert tokenizer.decode(out["completion_ids"][0][answer_BR[0]]).strip("{}") == "7"
    assert signals.mask_BR[answer_BR].all()
