"""Share of credit in a whole GRPO step, TRL's own, beside plain GRPO.

    python benchmarks/step_share.py

Three trainers from the same weights take turns at the same prompts and the same draws, at a learning rate of 0, so that
in each round they sample the same responses: plain GRPO (`uniform`), `flow`, and `flow` by a forward of its own where
it would read attention off generation or off another pass. A step is generation, rewards, credit, the loss with its
backward pass, and the optimiser. Shares are medians over rounds: of `flow` over `uniform` in the same round, less one,
and of the time inside credit itself, which is steadier but leaves out what listening costs. On a CPU all times are
processor times, so that other work on the machine does not count.

- `nano`: the demo's run. `nano-2`: the same with two optimiser steps a generation.
- `smollm2`: examples/smollm2.toml; every response is made to end in an answer, and runs to its full length.
- `gpu-1k`, `gpu-8k`: a random model of 4 B parameters in bfloat16, where there is a GPU: sequences of so many tokens of
  which the last 128 are sampled, so that generation is as small a part of a step as behind an inference server. Three
  trainers have to fit, so the optimiser keeps no state, and credit's share comes out larger than with Adam.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import LogitsProcessor, LogitsProcessorList

from flowtracer.credit import make_credit, reads_of
from flowtracer.model.load import load_model
from flowtracer.rl.run import read_run_file, reward_function
from flowtracer.rl.trl_trainer import FlowGRPOConfig, FlowGRPOTrainer
from flowtracer.study.machine import stamp
from flowtracer.tasks import make_task
from machine import processor_seconds, require_gpu, synchronised
from random_models import QWEN3, byte_tokenizer, random_model

ENDING = "\n#### 42\n"
PAPER = {"4B, 1K tokens": 0.022, "4B, 8K tokens": 0.045}


class Deaf(FlowGRPOTrainer):
    """Never listens to a pass that the trainer runs anyway."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self._overheard is not None:
            self._overheard.hears_generation = False
        return super()._generate_single_turn(*args, **kwargs)

    def _is_policy(self, model: Any) -> bool:
        return False


SIDES: dict[str, tuple[type[FlowGRPOTrainer], str]] = {
    "uniform": (FlowGRPOTrainer, "uniform"),
    "flow": (FlowGRPOTrainer, "flow"),
    "flow, own forward": (Deaf, "flow"),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run to measure."""

    load: Callable[[], tuple[Any, Any]]
    rows: Sequence[dict[str, Any]]
    """One generation's prompts, each as often as it is answered."""
    rewards: Callable[..., list[float]]
    options: dict[str, Any]
    ends: bool = False
    """Make every response run to its full length and end in an answer."""


class Ending(LogitsProcessor):
    """Lets no response end, and writes an answer as its last tokens."""

    def __init__(self, tokenizer: Any, new_tokens: int) -> None:
        self._ids = [*tokenizer(ENDING, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        self._left = new_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of the next token."""
        place = len(self._ids) - self._left
        self._left -= 1
        if place < 0:
            scores[:, self._ids[-1]] = -torch.inf
            return scores
        return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([self._ids[place]]).to(scores.device), 0)


def from_run_file(file: str, *, ends: bool, **changes: Any) -> Setting:
    """The run of a TOML file, with some options changed."""
    run = read_run_file(file)
    options = {**run.grpo, **changes}
    batch = options["per_device_train_batch_size"] * options.get("steps_per_generation", 1)
    problems = make_task(run.task.name, run.task.options).problems("train", batch // options["num_generations"])
    rows = [problem.row() for problem in problems for _ in range(options["num_generations"])]
    return Setting(
        load=lambda: load_model(run.model, device="cpu"),
        rows=rows,
        rewards=reward_function(make_task(run.task.name, run.task.options), problems, run.task.format_reward),
        options={**options, "use_cpu": True, "bf16": False},
        ends=ends,
    )


def with_prompts_of(tokens: int, sampled: int = 128, batch: int = 4) -> Setting:
    """A random model on a GPU, and prompts that fill all of a sequence but the sampled tokens."""

    def load() -> tuple[Any, Any]:
        shape = QWEN3["4B"]
        return random_model(shape, device="cuda"), byte_tokenizer(shape["vocab_size"])

    def rewards(completions: list[str], **_: Any) -> list[float]:
        return [sum(map(ord, text)) % 7 / 7 for text in completions]

    return Setting(
        load=load,
        rows=[{"prompt": ("0123456789" * tokens)[: tokens - sampled]}] * batch,
        rewards=rewards,
        options={
            "per_device_train_batch_size": batch,
            "num_generations": batch,
            "max_completion_length": sampled,
            "bf16": True,
            "gradient_checkpointing": True,
        },
        ends=True,
    )


def settings() -> dict[str, Callable[[], Setting]]:
    demo = "src/flowtracer/demo.toml"
    return {
        "nano": lambda: from_run_file(demo, ends=False),
        "nano-2": lambda: from_run_file(demo, ends=False, num_iterations=2),
        "smollm2": lambda: from_run_file("examples/smollm2.toml", ends=True),
        "gpu-1k": lambda: with_prompts_of(1024),
        "gpu-8k": lambda: with_prompts_of(8192),
    }


def make_trainer(setting: Setting, side: str, model: Any, tokenizer: Any, folder: str) -> FlowGRPOTrainer:
    cls, credit = SIDES[side]
    silent = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    changes = {"output_dir": folder, "learning_rate": 0.0, "save_steps": 500, **silent}
    return cls(
        model=copy.deepcopy(model),
        processing_class=tokenizer,
        args=FlowGRPOConfig(**{**setting.options, **changes}),
        train_dataset=Dataset.from_list(list(setting.rows)),
        reward_funcs=[setting.rewards],
        credit=make_credit(credit),
    )


def step(trainer: FlowGRPOTrainer, setting: Setting, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """All that TRL does from one generation to the next."""
    torch.manual_seed(seed)
    if setting.ends:
        ending = Ending(trainer.processing_class, trainer.args.max_completion_length)
        plain = type(trainer.model).generate.__get__(trainer.model)
        trainer.model.generate = lambda **given: plain(**given, logits_processor=LogitsProcessorList([ending]))
    trainer._step, trainer._buffered_inputs = 0, None
    for _ in range(trainer.args.steps_per_generation * trainer.num_iterations):
        trainer.training_step(trainer.model, list(setting.rows), None)
        optimizer.step()
        optimizer.zero_grad()


def seconds_of(call: Callable[[], None]) -> float:
    """Processor time on a CPU; wall time, once all is done, on a GPU."""
    if not torch.cuda.is_available():
        return processor_seconds(call)
    torch.cuda.synchronize()
    return synchronised(call)


def measure(name: str, rounds: int) -> dict[str, Any]:
    setting = settings()[name]()
    inside: dict[str, list[float]] = {side: [] for side in SIDES}
    loaded = setting.load()
    with tempfile.TemporaryDirectory() as folder:
        trainers = {side: make_trainer(setting, side, *loaded, folder) for side in SIDES}
        rule = torch.optim.SGD if loaded[0].device.type == "cuda" else torch.optim.AdamW
        optimizers = {side: rule(trainer.model.parameters(), lr=0.0) for side, trainer in trainers.items()}
        for side, trainer in trainers.items():
            trainer.model.train()
            trainer.current_gradient_accumulation_steps = 1
            inside[side] = time_inside(trainer)
            step(trainer, setting, optimizers[side], 0)  # to warm up; readers prove themselves
            inside[side].clear()
            trainer._metrics["train"].clear()
        turns = []
        for turn in range(1, rounds + 1):
            # Each side comes first, second and last in turn.
            order = sorted(SIDES, key=lambda side: (list(SIDES).index(side) + turn) % len(SIDES))
            calls = {side: functools.partial(step, trainers[side], setting, optimizers[side], turn) for side in order}
            turns.append({side: seconds_of(call) for side, call in calls.items()})
        metrics = {
            side: {key: statistics.mean(values) for key, values in t._metrics["train"].items() if "credit/" in key}
            for side, t in trainers.items()
        }
        tokens = statistics.mean(trainers["flow"]._metrics["train"]["completions/mean_length"])
    return {
        "sequences": len(setting.rows),
        "mean_response_tokens": round(tokens, 1),
        "rounds": rounds,
        "seconds": {side: statistics.median(turn[side] for turn in turns) for side in SIDES},
        "over_uniform": {side: statistics.median(turn[side] / turn["uniform"] for turn in turns) - 1 for side in SIDES},
        "inside_credit": {
            side: statistics.median(spent / turn[side] for spent, turn in zip(inside[side], turns, strict=True))
            for side in SIDES
        },
        "own_forward": {side: metrics[side]["credit/own_forward"] for side in SIDES},
        "traced": metrics["flow"]["credit/traced"],
    }


def time_inside(trainer: FlowGRPOTrainer) -> list[float]:
    """Where the times of every batch's signals and advantages will be written."""
    times: list[float] = []
    signals, credit = trainer._signals, trainer.credit

    def timed_signals(*arguments: Any) -> Any:
        found: list[Any] = []
        times.append(seconds_of(lambda: found.append(signals(*arguments))))
        return found[0]

    def timed_credit(given: Any) -> Any:
        found: list[Any] = []
        times[-1] += seconds_of(lambda: found.append(credit(given)))
        return found[0]

    timed_credit.reads = reads_of(credit)
    trainer._signals, trainer.credit = timed_signals, timed_credit
    return times


def table(results: dict[str, Any]) -> Table:
    rows = Table("run", "side", title="Share of credit in a GRPO step", title_justify="left")
    for header in ("s a step", "over uniform", "inside credit", "own forward"):
        rows.add_column(header, justify="right")
    for name, result in results.items():
        for side in SIDES:
            rows.add_row(
                name,
                side,
                f"{result['seconds'][side]:.2f}",
                f"{result['over_uniform'][side]:+.1%}",
                f"{result['inside_credit'][side]:.1%}",
                f"{result['own_forward'][side]:.0%}",
            )
    for name, share in PAPER.items():
        rows.add_row("the paper", name, "", f"{share:+.1%}", "", "")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=["nano", "nano-2", "smollm2"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/step_share.json"))
    options = parser.parse_args()
    if not set(options.runs) <= set(settings()):
        parser.error(f"expected runs among {', '.join(settings())}, got {', '.join(options.runs)}")
    if any(name.startswith("gpu") for name in options.runs):
        require_gpu()
    results = {name: measure(name, options.rounds) for name in options.runs}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = {"machine": stamp(), "threads": torch.get_num_threads(), "paper": PAPER, "runs": results}
    options.out.write_text(json.dumps(written, indent=2) + "\n")
    Console().print(table(results))


if __name__ == "__main__":
    main()
