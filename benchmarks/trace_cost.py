"""Cost of a whole trace beside a plain forward and beside the obvious way, over lengths, in one run.

    python benchmarks/trace_cost.py --model smollm2

Three calls on the same tokens take turns:

- a plain forward with LM head;
- a whole trace: truncated forward, panels, reach, flow, edges, fans, flow between steps of 15 tokens, heads;
- the obvious way: `output_attentions=True` on eager attention, the mean map, and the two recurrences as numpy loops.

Times are medians, ratios are of calls within a round; memory is the peak above the resting process. Where the maps of
the obvious way would not fit the memory that is free, it is left out and said so. Growth is the slope of log seconds
over log tokens, from 1,024 tokens on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from flowtracer.attention.panels import AttentionPanels
from flowtracer.doctor import free_memory
from flowtracer.flow import summarise_edges, summarise_heads
from flowtracer.flow.edges import MAX_EDGES
from flowtracer.flow.solution import panel_bounds
from flowtracer.flow.solve import solve, within_budget
from flowtracer.model.capture import AttentionReader
from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp
from flowtracer.text.span import Span
from growth import exponents
from machine import peak_bytes, seconds

STEP_TOKENS = 15
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
FEWER_ROUNDS_FROM = 4096
"""Where a round takes minutes."""


class Calls:
    """The three ways, on one text of random tokens."""

    def __init__(self, model: Any, reader: AttentionReader, length: int) -> None:
        self.model, self.reader = model, reader
        generator = torch.Generator().manual_seed(length)
        self.ids_1T = torch.randint(10, model.config.vocab_size - 10, (1, length), generator=generator)
        self.question_1T, self.answer_1T = torch.zeros(2, 1, length, dtype=torch.bool)
        self.question_1T[:, : length // 8] = True
        self.answer_1T[:, -4:] = True
        bounds = [*range(0, length, STEP_TOKENS), length]
        self.steps = [Span(start=start, stop=stop) for start, stop in pairwise(bounds)]
        self.parts: dict[str, list[float]] = {}

    def plain(self) -> None:
        """The forward that everybody runs."""
        self.model(self.ids_1T, use_cache=False)

    def trace(self) -> None:
        """What `Tracer` does, timed part by part."""
        layers = self._timed("forward", lambda: self.reader.read(self.ids_1T))
        attention = AttentionPanels(layers)
        panels = within_budget(attention)
        bounds = panel_bounds(panels.length, panels.panel_rows)
        # Kept panels are computed once, here; a source that keeps none computes them in every pass.
        self._timed("panels", lambda: [panels.rows(*bound) for bound in bounds] if panels is not attention else None)
        found = self._timed("solve", lambda: solve(panels, self.question_1T, self.answer_1T))
        edges = self._timed("edges", lambda: summarise_edges(panels, found, max_edges=MAX_EDGES, steps=[self.steps]))
        self._timed("heads", lambda: summarise_heads(attention, found, [summary.edges for summary in edges]))

    def obvious(self) -> None:
        """All maps at once, then numpy."""
        self.model.set_attn_implementation("eager")
        try:
            maps = self.model(self.ids_1T, use_cache=False, output_attentions=True).attentions
        finally:
            self.model.set_attn_implementation("sdpa")
        mean_TT = torch.stack([maps[layer][0].mean(0) for layer in self.reader.layers]).mean(0).double().numpy()
        obvious_flow(mean_TT, self.question_1T[0].numpy(), self.answer_1T[0].numpy())

    def _timed(self, part: str, call: Any) -> Any:
        found = []
        self.parts.setdefault(part, []).append(seconds(lambda: found.append(call())))
        return found[0]


def obvious_flow(mean_TT: np.ndarray, question_T: np.ndarray, answer_T: np.ndarray) -> np.ndarray:
    """Equations (2) to (4), a token at a time."""
    length = len(mean_TT)
    reach_T = answer_T.astype(float)
    for i in reversed(range(length)):
        if not answer_T[i]:
            reach_T[i] = mean_TT[i + 1 :, i] @ reach_T[i + 1 :]
    enters_T = question_T & (reach_T > 0)
    flow_T = enters_T / enters_T.sum()
    for k in range(length):
        if reach_T[k] > 0:
            earlier_K = ~answer_T[:k] & (reach_T[:k] > 0)
            given_K = mean_TT[k, :k] * reach_T[k] / np.where(reach_T[:k] > 0, reach_T[:k], 1.0)
            flow_T[k] += given_K[earlier_K] @ flow_T[:k][earlier_K]
    return flow_T


def measure(model: Any, length: int, rounds: int) -> dict[str, Any]:
    """One length."""
    calls = Calls(model, AttentionReader(model), length)
    ways = {"plain forward": calls.plain, "trace": calls.trace, "obvious way": calls.obvious}
    config = model.config
    maps = 4 * config.num_hidden_layers * config.num_attention_heads * length**2
    if maps > free_memory("cpu") / 2:
        del ways["obvious way"]
    with torch.no_grad():
        peaks = {name: peak_bytes(call) for name, call in ways.items()}  # the first turn is the warm-up too
        for times in calls.parts.values():
            times.clear()
        turns = [{name: seconds(call) for name, call in ways.items()} for _ in range(rounds)]
    return {
        "length": length,
        "rounds": rounds,
        "seconds": {name: statistics.median(turn[name] for turn in turns) for name in ways},
        "peak_bytes": peaks,
        "bytes_of_maps": maps,
        "trace_over": {
            name: statistics.median(turn["trace"] / turn[name] for turn in turns) for name in ways if name != "trace"
        },
        "parts_of_trace": {name: statistics.median(times) for name, times in calls.parts.items()},
    }


def table(rows: list[dict[str, Any]], model: str) -> Table:
    """One row a length."""
    shown = Table(title=f"{model}: seconds, and the whole trace over the others", title_justify="left")
    headers = ("tokens", "plain", "trace", "obvious", "over plain", "over obvious", "solve's share")
    for header in (*headers, "peak: plain", "trace", "obvious"):
        shown.add_column(header, justify="right")
    for row in rows:
        times, over, peaks = row["seconds"], row["trace_over"], row["peak_bytes"]
        shown.add_row(
            f"{row['length']:,}",
            *(f"{times[name]:.2f}" if name in times else "-" for name in ("plain forward", "trace", "obvious way")),
            *(f"{over[name]:.2f}" if name in over else "-" for name in ("plain forward", "obvious way")),
            f"{row['parts_of_trace']['solve'] / times['trace']:.1%}",
            *(
                f"{peaks[name] / 2**20:,.0f} MiB" if peaks.get(name) is not None else "-"
                for name in ("plain forward", "trace", "obvious way")
            ),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/trace_cost.json"))
    options = parser.parse_args()
    model, _ = load_model(options.model, device="cpu")
    rows = []
    for length in options.lengths:
        rounds = options.rounds if length < FEWER_ROUNDS_FROM else max(1, options.rounds // 3)
        rows.append(measure(model, length, rounds))
        Console(width=140).print(table(rows[-1:], options.model))
    result = {
        "machine": stamp(),
        "threads": torch.get_num_threads(),
        "model": options.model,
        "growth": exponents([(row["length"], {**row["seconds"], **row["parts_of_trace"]}) for row in rows]),
        "lengths": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    Console(width=140).print(table(rows, options.model))


if __name__ == "__main__":
    main()
