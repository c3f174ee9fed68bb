"""Memory and time of a whole trace over lengths: what `Tracer.trace` runs, from text to `Trace`.

    python benchmarks/whole_trace.py

A random model of 3 layers of width 64 (4 heads, 2 for keys and values) reads sentences of 15 tokens: encoding, forward,
attention, reach, flow, edges, fans, flow between sentences, heads. *Streamed* keeps nothing of size T^2 and computes
the panels of attention in every pass; *kept* computes them once. Memory is the peak above the process at rest, which
holds the model. Processor seconds count all threads, and nothing that else runs on the machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM

from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp
from flowtracer.tracing.tracer import Tracer
from growth import exponents
from machine import peak_bytes, processor_seconds, seconds

LENGTHS = (4096, 8192, 16384, 32768)
KEPT_UP_TO = 8192
STEP = "b=a+c+d+e, a is 2, b is 5.\n"
STEP_TOKENS = 15
SHAPE = {"layers": 3, "width": 64, "heads": 4, "kv_heads": 2}


def made_model(vocabulary: int) -> Any:
    """A random model that takes any length."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=vocabulary,
        hidden_size=SHAPE["width"],
        intermediate_size=2 * SHAPE["width"],
        num_hidden_layers=SHAPE["layers"],
        num_attention_heads=SHAPE["heads"],
        num_key_value_heads=SHAPE["kv_heads"],
        head_dim=SHAPE["width"] // SHAPE["heads"],
        max_position_embeddings=2 * max(LENGTHS),
        initializer_range=0.3,
    )
    return AutoModelForCausalLM.from_config(config).eval()


class Run:
    """One trace, and what was measured of it."""

    def __init__(self, tracer: Tracer, length: int) -> None:
        self._tracer = tracer
        self._response = STEP * (length // STEP_TOKENS - 2) + "<answer>5</answer>"
        self.wall = self.processor = 0.0
        self.steps = 0

    def __call__(self) -> None:
        """Trace, and keep the times."""
        self.processor = processor_seconds(self._timed)

    def _timed(self) -> None:
        self.wall = seconds(self._trace)

    def _trace(self) -> None:
        self.steps = len(self._tracer.trace("a=2; c=1; d=1; e=1.\n", self._response).step_spans)


def measure(tracers: dict[str, Tracer], length: int) -> dict[str, Any]:
    """One length."""
    row: dict[str, Any] = {"length": length}
    for name, tracer in tracers.items():
        if name == "streamed" or length <= KEPT_UP_TO:
            run = Run(tracer, length)
            peak = peak_bytes(run)
            row[name] = {"peak_bytes": peak, "seconds": run.wall, "processor_seconds": run.processor}
            row["steps"] = run.steps
    return row


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written, with how memory and time grow."""
    measured = {"memory": "peak_bytes", "processor time": "processor_seconds"}
    numbers = [
        (
            row["length"],
            {
                f"{name}: {what}": row[name][key]
                for name in ("streamed", "kept")
                for what, key in measured.items()
                if row.get(name, {}).get(key) is not None
            },
        )
        for row in rows
    ]
    return {
        "machine": stamp(),
        "threads": torch.get_num_threads(),
        "shape": SHAPE,
        "step_tokens": STEP_TOKENS,
        "growth": exponents(numbers),
        "lengths": rows,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """One row a length."""
    kinds = ("streamed", "kept")
    shown = Table("tokens", "sentences", *(f"{kind}: {what}" for kind in kinds for what in ("MiB", "s", "cpu s")))
    for row in rows:
        cells = (cell for kind in kinds for cell in measured(row.get(kind)))
        shown.add_row(f"{row['length']:,}", f"{row['steps']:,}", *cells)
    return shown


def measured(run: dict[str, Any] | None) -> tuple[str, str, str]:
    """Memory in MiB, seconds and processor seconds."""
    if run is None:
        return "-", "-", "-"
    memory = "-" if run["peak_bytes"] is None else f"{run['peak_bytes'] / 2**20:,.0f}"
    return memory, f"{run['seconds']:.1f}", f"{run['processor_seconds']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/whole_trace.json"))
    options = parser.parse_args()
    _, tokenizer = load_model("nano", device="cpu")
    tokenizer.model_max_length = 2 * max(LENGTHS)  # nano's own, of which only the tokenizer is taken
    model = made_model(len(tokenizer))
    tracers = {"streamed": Tracer(model, tokenizer, memory_budget=0), "kept": Tracer(model, tokenizer)}
    for tracer in tracers.values():
        Run(tracer, 1024)()  # libraries are loaded at the first trace
    rows = []
    for length in options.lengths:
        rows.append(measure(tracers, length))
        Console(width=120).print(table(rows[-1:]))
        options.out.write_text(json.dumps(result(rows), indent=1) + "\n")
    Console(width=120).print(table(rows))


if __name__ == "__main__":
    main()
