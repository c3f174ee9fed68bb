"""What each capacity costs beside attention, over tokens and over layers, in one run.

    python benchmarks/capacity_cost.py --model smollm2

A whole trace of one text by each capacity and graph, edges between tokens and steps included, heads left out, takes
turns with the trace of attention over tokens, as in the paper. Ratios are of processor time of calls within a
round, so that what else runs on the machine does not count; the median does. The text is a worked solution repeated
to about the length asked for, which ends in an answer. Attention over tokens reads the middle third of the layers,
and so do its rivals there; over layers all are read.

A plain forward with LM head is measured too: what a trace costs beside what everybody runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.attention.capacity import CAPACITIES, GRAPHS
from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.tracer import Tracer
from machine import processor_seconds

PROMPT = "Each box holds 12 eggs. How many eggs do 5 boxes hold?\n"
SENTENCE = "Each box holds 12 eggs, so 5 boxes hold 5 * 12 = 60 eggs.\n"
PLAIN = "attention over tokens"


def measure(model: Any, tokenizer: Any, length: int, rounds: int) -> dict[str, Any]:
    """Processor seconds and ratios of every combination at one length."""
    tracers = {
        f"{capacity} over {'layers' if graph == 'layered' else graph}": Tracer(
            model, tokenizer, capacity=capacity, graph=graph, heads_per_edge=0
        )
        for graph in GRAPHS
        for capacity in CAPACITIES
    }
    plain = tracers[PLAIN]
    one = plain.needed_tokens(Rollout(prompt=PROMPT, response=SENTENCE + "A: 60"))
    two = plain.needed_tokens(Rollout(prompt=PROMPT, response=2 * SENTENCE + "A: 60"))
    times = max(1, round((length - one) / (two - one)) + 1)
    rollout = Rollout(prompt=PROMPT, response=times * SENTENCE + "A: 60")
    ids_1T = torch.from_numpy(plain.trace_batch([rollout])[0].token_ids)[None]
    spent: dict[str, list[float]] = {}
    for _ in range(rounds):
        with torch.no_grad():
            spent.setdefault("forward", []).append(processor_seconds(lambda: model(ids_1T, use_cache=False)))
        for name, tracer in tracers.items():
            spent.setdefault(name, []).append(processor_seconds(lambda tracer=tracer: tracer.trace_batch([rollout])))
    return {
        "tokens": ids_1T.shape[1],
        "rounds": rounds,
        "seconds": {name: statistics.median(each) for name, each in spent.items()},
        "over_attention": {
            name: statistics.median(a / b for a, b in zip(each, spent[PLAIN], strict=True))
            for name, each in spent.items()
        },
    }


def table(rows: list[dict[str, Any]], model: str) -> Table:
    """A line a combination, a column a length."""
    shown = Table(title=f"a trace over the trace of attention over tokens, {model}")
    shown.add_column("")
    for row in rows:
        shown.add_column(f"{row['tokens']} tokens", justify="right")
    for name in rows[0]["over_attention"]:
        shown.add_row(name, *(f"{row['over_attention'][name]:.2f}" for row in rows))
    return shown


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "capacity_cost.json")
    options = parser.parse_args()
    model, tokenizer = load_model(options.model, dtype="float32")
    rows = []
    for length in options.lengths:
        rows.append(measure(model, tokenizer, length, options.rounds))
        Console(width=120).print(table(rows[-1:], options.model))
    result = {"machine": stamp(), "threads": torch.get_num_threads(), "model": options.model, "lengths": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    Console(width=120).print(table(rows, options.model))


if __name__ == "__main__":
    main()
