"""Cost of a whole trace beside a plain forward and beside the obvious way, in one run.

    python benchmarks/trace_cost.py --model smollm2 --length 1024

Three calls on the same tokens take turns: a plain forward with LM head; a whole trace (truncated forward, panels,
reach, flow, edges, fans, heads); and `output_attentions=True` on eager attention, which gives the maps and nothing
else. Times are medians, ratios are of pairs within a round; memory is the peak above the resting process.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.attention import AttentionPanels
from flowtracer.capture import AttentionReader
from flowtracer.flow import solve, summarise_edges, summarise_heads, within_budget
from flowtracer.models import load_model
from machine import peak_bytes, seconds, stamp


def measure(model_name: str, length: int, rounds: int) -> dict:
    model, _ = load_model(model_name, device="cpu")
    eager, _ = load_model(model_name, device="cpu")
    eager.set_attn_implementation("eager")
    reader = AttentionReader(model)
    torch.manual_seed(0)
    ids = torch.randint(10, model.config.vocab_size - 10, (1, length))
    question, answer = torch.zeros(2, 1, length, dtype=torch.bool)
    question[:, : length // 8] = True
    answer[:, -4:] = True
    parts: dict[str, list[float]] = {"forward": [], "panels and reach": [], "flow, edges and fans": [], "heads": []}

    def trace() -> None:
        layers = []
        parts["forward"].append(seconds(lambda: layers.extend(reader.read(ids))))
        attention = AttentionPanels(layers)
        panels = within_budget(attention)
        found, edges = [], []
        parts["panels and reach"].append(seconds(lambda: found.append(solve(panels, question, answer))))
        parts["flow, edges and fans"].append(
            seconds(lambda: edges.extend(s.edges for s in summarise_edges(panels, found[0], max_edges=100_000)))
        )
        parts["heads"].append(seconds(lambda: summarise_heads(attention, found[0], edges)))

    calls = {
        "plain forward": lambda: model(ids, use_cache=False),
        "trace": trace,
        "eager with attentions": lambda: eager(ids, use_cache=False, output_attentions=True),
    }
    with torch.no_grad():
        peaks = {name: peak_bytes(call) for name, call in calls.items()}  # the first turn is the warm-up too
        for times in parts.values():
            times.clear()
        turns = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    medians = {name: statistics.median(turn[name] for turn in turns) for name in calls}
    return {
        "machine": stamp(),
        "threads": torch.get_num_threads(),
        "model": model_name,
        "length": length,
        "rounds": rounds,
        "seconds": medians,
        "peak_bytes": peaks,
        "trace_over": {
            name: statistics.median(turn["trace"] / turn[name] for turn in turns) for name in calls if name != "trace"
        },
        "parts_of_trace": {name: statistics.median(times) for name, times in parts.items()},
    }


def table(result: dict) -> Table:
    rows = Table("call", title=f"{result['model']}, T = {result['length']}", title_justify="left")
    for header in ("seconds", "trace over it", "peak memory"):
        rows.add_column(header, justify="right")
    for name, time in result["seconds"].items():
        ratio, peak = result["trace_over"].get(name), result["peak_bytes"][name]
        memory = "" if peak is None else f"{peak / 2**20:.0f} MiB"
        rows.add_row(name, f"{time:.3f}", "" if ratio is None else f"{ratio:.2f}", memory)
    for name, time in result["parts_of_trace"].items():
        rows.add_row(f"  trace: {name}", f"{time:.3f}", "", "")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/trace_cost.json"))
    options = parser.parse_args()
    result = measure(options.model, options.length, options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
