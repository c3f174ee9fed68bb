"""The kernels of head-mean attention on a GPU, beside torch's panels and beside what the machine could do at best.

    python benchmarks/kernel.py

On random queries and keys of one layer (Qwen3-4B's shape by default), every row of `W` is computed once, a panel at a
time, by the kernels and by torch's panels, in turns. Two floors stand beside the times:

- bytes: queries and keys read once, the lower triangle of `W` written once, over the bandwidth of a large copy;
- work: for every pair of tokens and every head one exponential, over 16 a clock and multiprocessor, and the products of
  one score, over the rate of a large matrix product in the same type; both passes of the kernels counted, because a row
  must be summed up before its mean over heads can be taken.

A share is the larger floor over the time. Last, a trace of a long sequence whose panels are recomputed in every sweep.
Needs an NVIDIA GPU, and ends with exit code 2 where there is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.attention.kernels.launch import default_tiles
from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.flow.solution import panel_bounds
from flowtracer.flow.solve import solve
from flowtracer.study.machine import stamp
from machine import require_gpu, synchronised

PASSES = 2
"""How often the kernels compute a score: for the statistics of its row, and for the mean over heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What the machine does at best, each in units per second."""

    bytes: float
    exponentials: float
    products: float
    """Multiplications and additions, two for a pair of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One layer's attention."""

    heads: int
    key_heads: int
    width: int
    dtype: torch.dtype


def measured_peaks(dtype: torch.dtype) -> Peaks:
    """Peaks of this GPU: two measured in this run, and exponentials by its clock."""
    from triton.runtime import driver

    device = torch.cuda.current_device()
    about = driver.active.utils.get_device_properties(device)
    block = torch.empty(2**29, dtype=torch.uint8, device="cuda")
    square = torch.randn(8192, 8192, device="cuda").to(dtype)
    copy, product = (
        min(synchronised(call) for _ in range(10)) for call in (block.clone, lambda: torch.mm(square, square))
    )
    return Peaks(
        bytes=2 * block.numel() / copy,
        exponentials=16 * about["multiprocessor_count"] * about["sm_clock_rate"] * 1e3,
        products=2 * 8192**3 / product,
    )


def random_layer(length: int, shape: Shape, device: str) -> LayerAttention:
    """Queries and keys in the layout of a model: heads innermost but for their width."""
    query = torch.randn(1, length, shape.heads, shape.width, device=device, dtype=shape.dtype)
    keys = torch.randn(1, length, shape.key_heads, shape.width, device=device, dtype=shape.dtype)
    return LayerAttention(
        layer=0,
        query_BHTD=query.transpose(1, 2),
        key_BKTD=keys.transpose(1, 2),
        scale=shape.width**-0.5,
        mask=None,
    )


def floors(length: int, shape: Shape, peaks: Peaks) -> dict[str, float]:
    """Seconds below which no program with these passes can be, by what moves and by what is computed."""
    pairs = length * (length + 1) / 2
    vectors = length * shape.width * (shape.heads + shape.key_heads) * torch.finfo(shape.dtype).bits / 8
    score = 1 / peaks.exponentials + 2 * shape.width / peaks.products
    return {"bytes": (vectors + 4 * pairs) / peaks.bytes, "work": PASSES * shape.heads * pairs * score}


def measure(length: int, shape: Shape, peaks: Peaks, *, rounds: int, device: str = "cuda") -> dict:
    """Every row of one layer, by both implementations in turns; the first turn compiles and is not counted."""
    layer = random_layer(length, shape, device)

    def whole(implementation: str) -> None:
        panels = AttentionPanels([layer], implementation=implementation)
        for start, stop in panel_bounds(length, panels.panel_rows):
            panels.rows(start, stop)

    turns = [{name: synchronised(lambda: whole(name)) for name in ("triton", "torch")} for _ in range(rounds + 1)][1:]  # noqa: B023
    times = {name: statistics.median(turn[name] for turn in turns) for name in ("triton", "torch")}
    least = floors(length, shape, peaks)
    return {
        "length": length,
        "seconds": times,
        "floor_seconds": least,
        "share_of_floor": max(least.values()) / times["triton"],
        "torch_over_triton": statistics.median(turn["torch"] / turn["triton"] for turn in turns),
    }


def measure_streamed(length: int, shape: Shape, *, layers: int, device: str = "cuda") -> dict:
    """Reach and flow of a long sequence whose panels are recomputed in every sweep."""
    panels = AttentionPanels([random_layer(length, shape, device) for _ in range(layers)], implementation="triton")
    question, answer = torch.zeros(2, 1, length, dtype=torch.bool, device=device)
    question[:, : length // 8], answer[:, -4:] = True, True
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    solutions = []
    time = synchronised(lambda: solutions.append(solve(panels, question, answer)))
    return {
        "length": length,
        "layers": layers,
        "panel_rows": panels.panel_rows,
        "seconds": time,
        "peak_extra_bytes": torch.cuda.max_memory_allocated() - before if device == "cuda" else None,
        "flow_into_the_answer": float(solutions[0].flow_BT[answer].sum()),
    }


def table(result: dict) -> Table:
    rows = Table("T", title="every row of one layer's W", title_justify="left")
    for header in ("kernels, ms", "torch, ms", "torch / kernels", "bytes, ms", "work, ms", "share of floor"):
        rows.add_column(header, justify="right")
    for row in result["lengths"]:
        milliseconds = [*row["seconds"].values()], [*row["floor_seconds"].values()]
        own, floor = ([f"{1e3 * value:.3f}" for value in values] for values in milliseconds)
        rows.add_row(
            str(row["length"]), *own, f"{row['torch_over_triton']:.1f}", *floor, f"{row['share_of_floor']:.2f}"
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-heads", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streamed", type=int, default=131072, help="length of the long trace; 0 for none")
    parser.add_argument("--streamed-layers", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kernel.json"))
    options = parser.parse_args(arguments)
    require_gpu()
    shape = Shape(
        heads=options.heads,
        key_heads=options.key_heads,
        width=options.width,
        dtype=getattr(torch, options.dtype),
    )
    torch.manual_seed(0)
    peaks = measured_peaks(shape.dtype)
    result = {
        "machine": stamp(),
        "shape": {**asdict(shape), "dtype": options.dtype},
        "tiles": asdict(default_tiles(shape.dtype, shape.width)),
        "peaks": asdict(peaks),
        "rounds": options.rounds,
        "lengths": [measure(length, shape, peaks, rounds=options.rounds) for length in options.lengths],
    }
    if options.streamed:
        measure_streamed(2048, shape, layers=1)  # compiles
        torch.cuda.reset_peak_memory_stats()
        result["streamed"] = measure_streamed(options.streamed, shape, layers=options.streamed_layers)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(table(result))
    if options.streamed:
        Console().print(result["streamed"])


if __name__ == "__main__":
    main()
