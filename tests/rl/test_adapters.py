"""Credit for a model that trains an adapter alone."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from tiny import tiny_tokenizer
from trainers import RESPONSES, rows, saved_model, saying, vowels, weights_of

peft = pytest.importorskip("peft", reason="LoRA needs peft, which `make test` installs")

pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own


def lora():
    return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def make(tmp_path, *, wrapped=False, **options):
    model = AutoModelForCausalLM.from_pretrained(saved_model())
    given = {
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 60,
        "max_steps": 2,
        "learning_rate": 1e-2,
        **options,
    }
    trainer = FlowGRPOTrainer(
        model=peft.get_peft_model(model, lora()) if wrapped else model,
        processing_class=tiny_tokenizer(),
        args=FlowGRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            **given,
        ),
        train_dataset=Dataset.from_list(rows()),
        reward_funcs=[vowels],
        peft_config=None if wrapped else lora(),
    )
    saying(trainer, RESPONSES)
    return trainer


@pytest.mark.parametrize("wrapped", [False, True], ids=["configured", "wrapped"])
@pytest.mark.parametrize("options", [{}, {"beta": 0.04}, {"beta": 0.04, "num_iterations": 2}], ids=["", "KL", "riding"])
def test_an_adapter_is_trained_with_credit(tmp_path, wrapped, options):
    trainer = make(tmp_path, wrapped=wrapped, **options)
    start = weights_of(trainer)
    trainer.train()
    end = weights_of(trainer)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    # Where an adapter is given with a KL term, TRL keeps a copy of it as the reference.
    trained = {name for name in start if "lora" in name and ".ref." not in name}
    assert changed
    assert changed <= trained
    line = trainer.state.log_history[0]
    assert line["credit/traced"] == 0.75, "one response has no answer"
    assert line["credit/mean_factor"] > 1.1
    # Off generation, or off the pass of the policy: the reference's, which comes behind it, is not listened to.
    assert line["credit/own_forward"] == 0


def test_flow_is_that_of_the_model_with_its_adapter(tmp_path):
    trainer = make(tmp_path)
    rows_of = [trainer.train_dataset[0]] * 4
    seen = []
    credit = trainer.credit
    trainer.credit = lambda signals: seen.append(signals.flow.throughput_BR) or credit(signals)
    trainer.credit.reads = credit.reads
    trainer._generate_and_score_completions(rows_of)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    trainer._generate_and_score_completions(rows_of)
    trainer.model.merge_adapter()
    trainer._generate_and_score_completions(rows_of)
    without, adapted, merged = seen
    assert float((adapted - without).abs().max()) > 1e-2
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
