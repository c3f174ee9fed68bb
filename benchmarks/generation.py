"""How fast nano generates, by batch size, cache and attention; all in one run, so that the ratios hold.

    python benchmarks/generation.py

Every setting generates the same number of tokens from the same prompts, a few times in turn; the median counts.
"""

from __future__ import annotations

import json
import statistics
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp
from flowtracer.tasks import Countdown
from machine import seconds

TOKENS = 60
REPEATS = 3
BATCHES = (16, 64, 256)
SETTINGS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
}


def main() -> None:
    """Measure, print a table, write benchmarks/results/generation.json."""
    model, tokenizer = load_model("nano")
    task = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20)
    prompts = [
        tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True)
        for problem in task.problems("train", max(BATCHES))
    ]
    times: dict[tuple[int, str, str], list[float]] = {}
    for _ in range(REPEATS + 1):
        for batch, cache, attention in product(BATCHES, SETTINGS, ("sdpa", "eager")):
            model.set_attn_implementation(attention)
            inputs = tokenizer(prompts[:batch], return_tensors="pt", padding=True)
            time = seconds(lambda inputs=inputs, cache=cache: generate(model, inputs, SETTINGS[cache]))
            times.setdefault((batch, cache, attention), []).append(time)
    rows = [
        {
            "batch": batch,
            "cache": cache,
            "attention": attention,
            "milliseconds_a_step": 1000 * statistics.median(measured[1:]) / TOKENS,  # the first warms up
            "tokens_a_second": batch * TOKENS / statistics.median(measured[1:]),
        }
        for (batch, cache, attention), measured in times.items()
    ]
    table = Table("batch", "cache", "attention", "ms a step", "tokens a second")
    for row in rows:
        numbers = (f"{row['milliseconds_a_step']:.1f}", f"{row['tokens_a_second']:,.0f}")
        table.add_row(str(row["batch"]), row["cache"], row["attention"], *numbers)
    Console().print(table)
    document = {"machine": stamp() | {"threads": torch.get_num_threads()}, "rows": rows}
    file = Path(__file__).parent / "results" / "generation.json"
    file.write_text(json.dumps(document, indent=1) + "\n")


@torch.inference_mode()
def generate(model: Any, inputs: Any, options: dict[str, Any]) -> None:
    """Sample `TOKENS` tokens a prompt."""
    torch.manual_seed(0)
    sampling = {"do_sample": True, "top_k": 0, "temperature": 1.0}
    model.generate(**inputs, max_new_tokens=TOKENS, min_new_tokens=TOKENS, **sampling, **options)


if __name__ == "__main__":
    main()
