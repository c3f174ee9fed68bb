"""Cost of each credit strategy as a share of a GRPO step, on a random model.

    python benchmarks/credit_cost.py --tokens 300

One batch of sequences stands in for what was sampled. A step is generation, token by token with a cache, and the loss
with its backward pass, as a trainer runs them; a strategy's cost is the time that its signals and its advantages take
on top. All are timed in turn, in processor time, for several rounds after one to warm up; shares are medians over
rounds. How much of a step is generation depends on the model and its server, so the share over forward and backward
alone is given too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from flowtracer.credit import Signals, make_credit, needs_of, of_text
from flowtracer.credit.signals import GroupSignals
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from flowtracer.study.machine import stamp
from machine import processor_seconds
from random_models import byte_tokenizer

PROMPT_TOKENS = 60
OPTIONS = {"grail": {"target": "answer"}, "likelihood_gain": {"target": "answer"}}


def sample(tokenizer: PreTrainedTokenizerFast, batch: int, tokens: int) -> Sampled:
    """Sequences of the wished length, each with an answer near its end."""
    generator = torch.Generator().manual_seed(0)
    ending = tokenizer("\n<answer>42</answer>")["input_ids"]
    plain = tokenizer("abcdefghij 0123456789+-*/=.\n")["input_ids"]

    def draw(count: int) -> list[list[int]]:
        picks = torch.randint(0, len(plain), (batch, count), generator=generator)
        return torch.tensor(plain)[picks].tolist()

    responses = [[*row, *ending] for row in draw(tokens - PROMPT_TOKENS - len(ending))]
    prompts_BP, responses_BR = torch.tensor(draw(PROMPT_TOKENS)), torch.tensor(responses)
    return Sampled(
        prompt_ids_BP=prompts_BP,
        prompt_mask_BP=torch.ones_like(prompts_BP),
        response_ids_BR=responses_BR,
        response_mask_BR=torch.ones_like(responses_BR),
        prompts=tokenizer.batch_decode(prompts_BP),
        golds=["42"] * batch,
    )


def measure(batch: int, tokens: int, rounds: int, size: dict) -> dict:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **size)).train()
    tokenizer = byte_tokenizer(size["vocab_size"])
    sampled = sample(tokenizer, batch, tokens)
    ids_BT = torch.cat([sampled.prompt_ids_BP, sampled.response_ids_BR], 1)
    mask_BR = sampled.response_mask_BR.bool()
    seeds_B = tuple(range(batch))
    group = GroupSignals(
        token_ids_BR=sampled.response_ids_BR,
        groups_B=torch.zeros(batch, dtype=torch.long),
        rewards_B=(torch.arange(batch) % 2).float(),
        baselines_B=torch.full((batch,), 0.5),
    )

    def generate() -> None:
        count = sampled.response_ids_BR.shape[1]
        prompts = sampled.prompt_ids_BP
        asked = {"attention_mask": torch.ones_like(prompts), "pad_token_id": tokenizer.pad_token_id}
        with torch.no_grad():
            model.generate(prompts, do_sample=True, min_new_tokens=count, max_new_tokens=count, **asked)

    def learn() -> None:
        logits = model(ids_BT).logits[:, PROMPT_TOKENS - 1 : -1]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), sampled.response_ids_BR.flatten()).backward()
        model.zero_grad()

    def credit_call(name: str) -> Callable[[], None]:
        credit = make_credit(name, OPTIONS.get(name))
        reader = SignalReader(model, tokenizer, credit, rows_per_forward=batch)

        def call() -> None:
            readings = replace(reader.read(sampled, seeds_B)[0], group=group)
            credit(Signals(mask_BR=mask_BR, advantages_B=group.rewards_B - 0.5, seeds_B=seeds_B, readings=readings))

        return call

    calls = {"generate": generate, "learn": learn, **{name: credit_call(name) for name in sorted(of_text())}}
    for call in calls.values():
        call()
    turns = [{name: processor_seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    return {
        "machine": stamp(),
        "model": {"family": "qwen3", **size},
        "sequences": batch,
        "tokens": tokens,
        "rounds": rounds,
        "seconds": {name: statistics.median(turn[name] for turn in turns) for name in calls},
        "share_of_step": {
            name: statistics.median(turn[name] / (turn["generate"] + turn["learn"]) for turn in turns)
            for name in sorted(of_text())
        },
        "share_of_learning": {
            name: statistics.median(turn[name] / turn["learn"] for turn in turns) for name in sorted(of_text())
        },
    }


def table(result: dict) -> Table:
    rows = Table("strategy", "needs", title=f"{result['sequences']} sequences of {result['tokens']} tokens")
    for header in ("ms", "of forward and backward", "of a step"):
        rows.add_column(header, justify="right")
    for name, share in sorted(result["share_of_step"].items(), key=lambda item: item[1]):
        needs = ", ".join(sorted(needs_of(make_credit(name)))) or "-"
        learning = result["share_of_learning"][name]
        rows.add_row(name, needs, f"{result['seconds'][name] * 1e3:.1f}", f"{learning:.1%}", f"{share:.1%}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/credit_cost.json"))
    options = parser.parse_args()
    size = {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
    }
    result = measure(options.sequences, options.tokens, options.rounds, size)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
