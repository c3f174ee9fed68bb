"""Gradients backward and forward against each other and against the trainer's own."""

import pytest
import torch
from datasets import Dataset

from flowtracer.checks.meter.gradient import Policy, choose_parameters, with_adapters
from flowtracer.checks.meter.loss import LOSS_TYPES, token_weights
from flowtracer.credit import Signals
from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from flowtracer.signals.sampled import Sampled
from tiny import tiny_model, tiny_tokenizer
from tolerances import RELATIVE

pytestmark = [
    # torch's own, when it first differentiates forward; TRL's and accelerate's
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning"),
]


def sampled_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(n):
        return torch.randint(3, 200, (n,), generator=generator).tolist()

    return Sampled.padded([(draw(3 + n % 4), draw(n)) for n in lengths])


@pytest.mark.parametrize(
    ("family", "digits"),
    # The first two take softmax in float32, whatever they are held in.
    [("llama", torch.float32), ("qwen3", torch.float32), ("gpt2", torch.float64)],
)
def test_forward_mode_is_the_inner_product_of_the_backward_pass(family, digits):
    """The two agree, in float64 to many digits, whatever the padding and the number of sequences at a time."""
    options = {} if family != "gpt2" else {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = tiny_model(family, **options).to(digits)
    sampled = sampled_of([5, 1, 9, 3, 7])
    generator = torch.Generator().manual_seed(1)
    policy = Policy(model, rows_per_forward=2)
    weights_KBR = torch.randn(3, *sampled.response_ids_BR.shape, dtype=digits, generator=generator)
    directions_DN = torch.randn(2, policy.size, dtype=digits, generator=generator)
    gradients_KN = policy.gradients(sampled, weights_KBR)
    slopes_DBR = policy.slopes(sampled, directions_DN)
    inner_KD = torch.einsum("kbr,dbr->kd", weights_KBR, slopes_DBR)
    near(inner_KD, gradients_KN @ directions_DN.T, digits)
    assert float(inner_KD.abs().min()) > 1e-3
    assert not slopes_DBR[:, ~sampled.response_mask_BR.bool()].any()
    near(gradients_KN, Policy(model, rows_per_forward=5).gradients(sampled, weights_KBR), digits)


def near(found, expected, dtype):
    """As vectors: single numbers of a gradient are small differences of large ones."""
    assert float((found - expected).norm()) <= RELATIVE[dtype] * float(expected.norm())


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    model.get_input_embeddings().weight.requires_grad_(False)
    sampled = sampled_of([4, 6])
    policy = Policy(model, parameters="all")
    policy.gradients(sampled, torch.ones(1, *sampled.response_ids_BR.shape))
    policy.slopes(sampled, torch.ones(1, policy.size))
    assert model.training
    assert not model.get_input_embeddings().weight.requires_grad
    assert all(value.grad is None for value in model.parameters())
    assert model.config._attn_implementation == tiny_model().config._attn_implementation


def test_some_parameters_alone():
    model, sampled = tiny_model().double(), sampled_of([4, 6])
    weights_KBR = torch.ones(1, *sampled.response_ids_BR.shape)
    chosen = choose_parameters(model, r"layers\.3\.")
    sizes = [value.numel() for value in model.parameters()]
    parts = Policy(model).gradients(sampled, weights_KBR)[0].split(sizes)
    whole = dict(zip(dict(model.named_parameters()), parts, strict=True))
    part_N = Policy(model, parameters=r"layers\.3\.").gradients(sampled, weights_KBR)[0]
    near(part_N, torch.cat([whole[name] for name in chosen]), torch.float32)


@pytest.mark.parametrize(
    ("model", "which", "message"),
    [
        (tiny_model, "attention_of_nobody", "expected names of parameters"),
        (tiny_model, "layers.(", "regular expression"),
        (tiny_model, "lora", "LoRA parameters"),
        (lambda: tiny_model().bfloat16(), "all", "float32"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(model, which, message):
    with pytest.raises(InputError, match=message):
        choose_parameters(model(), which)


def test_adapters_need_peft(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install peft"):
        with_adapters(tiny_model())


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_weights_are_those_of_the_trainers_loss(tmp_path, loss_type):
    """On the trainer's own samples, the gradient of its loss is ours with the sign turned."""
    trainer = FlowGRPOTrainer(
        model=tiny_model(),
        processing_class=tiny_tokenizer(),
        args=FlowGRPOConfig(
            output_dir=str(tmp_path),
            loss_type=loss_type,
            epsilon_high=5.0 if loss_type == "cispo" else None,  # there it bounds the ratio itself
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=12,
            temperature=0.8,
            max_steps=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            disable_tqdm=True,
            seed=3,
        ),
        train_dataset=Dataset.from_list([{"prompt": f"what is {i} + 4?" + " x" * (i % 3)} for i in range(16)]),
        reward_funcs=[lambda completions, **_: [sum(map(text.count, "aeiou")) / 10 for text in completions]],
        credit=every_other,
    )
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[0]] * 4 + [trainer.train_dataset[1]] * 4
    batch = trainer._generate_and_score_completions(rows)
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, batch).backward()
    expected_N = -torch.cat([value.grad.flatten() for value in trainer.model.parameters()])
    sampled = Sampled(
        prompt_ids_BP=batch["prompt_ids"],
        prompt_mask_BP=batch["prompt_mask"],
        response_ids_BR=batch["completion_ids"],
        response_mask_BR=batch["completion_mask"],
    )
    mask_BR = sampled.response_mask_BR.bool()
    assert len(set(sampled.lengths())) > 1, "equal lengths cannot tell the losses apart"
    weights_BR = batch["advantages"] * token_weights(loss_type, mask_BR, max_tokens=12)
    found_N = Policy(trainer.model, temperature=0.8).gradients(sampled, weights_BR[None])[0]
    assert float(expected_N.norm()) > 1e-3
    torch.testing.assert_close(found_N, expected_N, rtol=1e-3, atol=1e-5 * float(expected_N.norm()))


def every_other(signals: Signals) -> torch.Tensor:
    """A strategy with known factors."""
    factors_R = torch.where(torch.arange(signals.mask_BR.shape[1]) % 2 == 0, 1.5, 1.0)
    return signals.weighted(factors_R.expand(signals.mask_BR.shape))


def test_a_loss_that_is_not_linear_in_the_advantages_is_refused():
    with pytest.raises(InputError, match="vespo"):
        token_weights("vespo", torch.ones(1, 1, dtype=torch.bool), max_tokens=1)
