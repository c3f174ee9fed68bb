"""A whole trace of a long text on a GPU, by a model of 4 B parameters: seconds, and memory above the weights.

    python benchmarks/long_trace.py

The model has Qwen3-4B's shape and random weights in bfloat16, so that nothing is downloaded; its middle third of the
layers is read. Sentences have some 60 tokens. *Forward* is the same model over the same text without an LM head; a
*trace* is all that `Tracer.trace` runs, from text to `Trace`: a forward up to the last layer that is read, attention,
reach, flow, edges, fans, flow between sentences, and heads unless left out. Flow is exact at every length; what it
breaks by is the largest violation of its conservation. Needs an NVIDIA GPU, else ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.study.machine import stamp
from flowtracer.tracing.tracer import Tracer
from machine import require_gpu, synchronised
from random_models import QWEN3, byte_tokenizer, random_model

LENGTHS = (8192, 32768, 131072)
SENTENCE = "So the total of b and c is 17, and with a that makes 29 now.\n"
ANSWER = "<answer>29</answer>"


def measured(call: Callable[[], object]) -> dict[str, float | int | None]:
    """Seconds of a call, and its peak of GPU memory above what was there before."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    time = synchronised(call)
    return {"seconds": time, "peak_bytes": torch.cuda.max_memory_allocated() - before if on_gpu else None}


def measure(model: Any, tokenizer: Any, length: int) -> dict[str, Any]:
    """One length: a forward, a trace without heads, and a whole one."""
    prompt = "Let a be 12, b be 9 and c be 8.\n"
    response = SENTENCE * ((length - len(prompt) - len(ANSWER)) // len(SENTENCE)) + ANSWER
    ids = tokenizer(prompt + response, return_tensors="pt")["input_ids"].to(model.device)
    found: list[Any] = []

    def forward() -> None:
        with torch.inference_mode():
            model.base_model(ids, use_cache=False)

    tracers = {"trace without heads": Tracer(model, tokenizer, heads_per_edge=0), "trace": Tracer(model, tokenizer)}
    row: dict[str, Any] = {"length": ids.shape[1], "forward": measured(forward)}
    for name, tracer in tracers.items():
        row[name] = measured(lambda tracer=tracer: found.append(tracer.trace(prompt, response)))
    return {**row, "conservation_error": found[-1].conservation_error(), "steps": len(found[-1].step_spans)}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table("tokens", "sentences", title="A whole trace by a model of 4 B parameters", title_justify="left")
    kinds = ("forward", "trace without heads", "trace")
    for kind in kinds:
        shown.add_column(f"{kind}, s", justify="right")
        shown.add_column("GiB", justify="right")
    shown.add_column("breaks by", justify="right")
    for row in rows:
        cells = (
            cell
            for kind in kinds
            for cell in (f"{row[kind]['seconds']:.2f}", f"{(row[kind]['peak_bytes'] or 0) / 2**30:.1f}")
        )
        shown.add_row(f"{row['length']:,}", f"{row['steps']:,}", *cells, f"{row['conservation_error']:.1e}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_trace.json"))
    options = parser.parse_args(arguments)
    require_gpu()
    shape = QWEN3["4B"]
    model = random_model(shape, device="cuda", longest=2 * max(options.lengths)).eval()
    tokenizer = byte_tokenizer(shape["vocab_size"])
    measure(model, tokenizer, 2048)  # kernels are compiled, libraries loaded
    rows = []
    for length in options.lengths:  # written as it goes: a length that does not fit loses none before it
        rows.append(measure(model, tokenizer, length))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": stamp(), "shape": shape, "lengths": rows}, indent=1) + "\n")
    Console().print(table(rows))


if __name__ == "__main__":
    main()
