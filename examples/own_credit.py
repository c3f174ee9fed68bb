"""A credit strategy of one's own is a function of three lines.

    python examples/own_credit.py --model smollm2 --steps 2

It gets the `Signals` of a batch and returns an advantage for each token. What it reads of the model it names in
`needs`; a strategy that reads nothing of the model needs no such line.
"""

from __future__ import annotations

import argparse

import torch
from datasets import Dataset

from flowtracer.credit import Signals
from flowtracer.model.load import load_model
from flowtracer.rl.run import reward_function
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from flowtracer.tasks import TASKS


def sure_or_not(signals: Signals) -> torch.Tensor:
    """Half the weight on tokens that the policy was sure of."""
    return signals.weighted(torch.where(signals.logits.entropy_BR < 0.1, 0.5, 1.0))


sure_or_not.needs = {"logits"}  # so that entropies are computed


def train(model_name: str, steps: int, output_dir: str) -> FlowGRPOTrainer:
    model, tokenizer = load_model(model_name)
    task = TASKS["countdown"](max_numbers=3)
    problems = task.problems("train", 32)
    trainer = FlowGRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=FlowGRPOConfig(
            output_dir=output_dir,
            max_steps=steps,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=64,
            learning_rate=1e-6,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
        ),
        train_dataset=Dataset.from_list([problem.row() for problem in problems]),
        reward_funcs=[reward_function(task, problems, 0.1)],
        credit=sure_or_not,
    )
    trainer.train()
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--out", default="runs/own_credit")
    options = parser.parse_args()
    for line in train(options.model, options.steps, options.out).state.log_history:
        print(line)


if __name__ == "__main__":
    main()
