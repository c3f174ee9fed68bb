"""Head-mean attention on a CPU: what was chosen in `AttentionPanels`, beside what else torch gives, in one run.

    python benchmarks/cpu_panels.py

Two layers of SmolLM2's shape. Each alternative departs from the chosen way in one thing:

- `N rows`: panels of so many rows, where the chosen way takes as many as keep its scores in 32 MiB, at most 128;
- `all columns`: the upper triangle is computed and masked away;
- `a head at a time`: smaller maps, more and smaller products;
- `softmax apart`: the softmax is written to memory of its own, not over its scores;
- `bf16 products`: queries and keys in bfloat16, the softmax in float32.

Alternatives take turns, the median of the ratios within a round counts. The error is the largest of any entry.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.flow.solution import panel_bounds
from flowtracer.study.machine import stamp
from machine import seconds
from made import random_layers

LENGTHS = (1024, 4096)
ROWS = (16, 32, 64, 256)
SHAPE = {"layers": 2, "heads": 9, "kv_heads": 3, "width": 64}
CHOSEN = "chosen"


def mean_rows(
    layers: list[LayerAttention],
    start: int,
    stop: int,
    *,
    columns: int | None = None,
    apart: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rows `start..stop` as the chosen way computes them, but for what is asked for."""
    columns = columns or stop
    total = torch.zeros(1, stop - start, columns)
    for layer in layers:
        query_BHPD = (layer.query_BHTD[:, :, start:stop] * layer.scale).to(dtype)
        key_BKCD = layer.key_BKTD[:, :, :columns].to(dtype)
        batch, heads, rows, width = query_BHPD.shape
        grouped = query_BHPD.reshape(batch, key_BKCD.shape[1], -1, width)
        scores = (grouped @ key_BKCD.mT).view(batch, heads, rows, columns).float()
        future_PC = torch.ones(rows, columns - start, dtype=torch.bool).triu(1)
        scores[..., start:].masked_fill_(future_PC, -torch.inf)
        total += (scores.softmax(-1) if apart else torch.softmax(scores, -1, out=scores)).sum(1)
    return total.div_(sum(len(layer.heads) for layer in layers)).tril_(start - 1)


def ways(length: int) -> dict[str, tuple[int, Callable[[int, int], Tensor]]]:
    """Rows of a panel, and what computes one."""
    layers = random_layers(length, **SHAPE)
    chosen = AttentionPanels(layers, implementation="torch")
    alone = [AttentionPanels([layer.with_heads([head])]) for layer in layers for head in range(SHAPE["heads"])]
    rows = chosen.panel_rows
    return {
        CHOSEN: (rows, chosen.rows),
        **{f"{other} rows": (other, chosen.rows) for other in ROWS},
        "all columns": (rows, lambda start, stop: mean_rows(layers, start, stop, columns=length)[..., :stop]),
        "a head at a time": (rows, lambda start, stop: sum(head.rows(start, stop) for head in alone) / len(alone)),
        "softmax apart": (rows, functools.partial(mean_rows, layers, apart=True)),
        "bf16 products": (rows, functools.partial(mean_rows, layers, dtype=torch.bfloat16)),
    }


def measure(length: int, rounds: int) -> dict[str, Any]:
    found = ways(length)

    def run(name: str) -> None:
        rows, panel = found[name]
        for start, stop in panel_bounds(length, rows):
            panel(start, stop)

    last = length - found[CHOSEN][0]
    expected = found[CHOSEN][1](last, length)
    errors = {name: float((panel(last, length) - expected).abs().max()) for name, (_, panel) in found.items()}
    turns = [{name: seconds(functools.partial(run, name)) for name in found} for _ in range(rounds + 1)][1:]
    return {
        "length": length,
        "rows": found[CHOSEN][0],
        "seconds": {name: statistics.median(turn[name] for turn in turns) for name in found},
        "over_chosen": {name: statistics.median(turn[name] / turn[CHOSEN] for turn in turns) for name in found},
        "error": errors,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table("way", title="Milliseconds of all panels, over the chosen way, largest error", title_justify="left")
    for row in rows:
        shown.add_column(f"{row['length']:,}", justify="right")
    for name in rows[0]["seconds"]:
        label = name if name != CHOSEN else f"chosen: {', '.join(str(row['rows']) for row in rows)} rows"
        shown.add_row(
            label,
            *(
                f"{1000 * row['seconds'][name]:.0f} ({row['over_chosen'][name]:.2f}, {row['error'][name]:.0e})"
                for row in rows
            ),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu_panels.json"))
    options = parser.parse_args()
    rows = [measure(length, options.rounds) for length in options.lengths]
    result = {"machine": stamp(), "threads": torch.get_num_threads(), "shape": SHAPE, "lengths": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(rows))


if __name__ == "__main__":
    main()
