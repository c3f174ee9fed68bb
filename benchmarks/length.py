"""How long a text can be: exact flow, streamed, over synthetic queries and keys; and what shared prompts save.

    python benchmarks/length.py

Two layers with the heads of SmolLM2-135M (9 of width 64, 3 for keys and values). *Streamed*: nothing of size T^2 is
kept, so both sweeps compute every panel. *Kept*: the panels are computed once. Memory is the peak above the process at
rest, which holds the queries and keys. On a GPU it goes on to 128K tokens.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.attention.panels import AttentionPanels
from flowtracer.attention.shared_prefix import SharedPrefixPanels
from flowtracer.flow import CachedPanels
from flowtracer.flow.solve import solve
from flowtracer.study.machine import stamp
from machine import peak_bytes, seconds
from made import random_layers

LENGTHS = (4096, 8192, 16384, 32768)
LONGER_ON_A_GPU = (65536, 131072)
KEPT_UP_TO = 16384
SHAPE = {"layers": 2, "heads": 9, "kv_heads": 3, "width": 64}


def measure_length(length: int, device: str) -> dict[str, Any]:
    """Seconds and memory of one length, and how far apart streamed and kept are."""
    layers = [
        replace(layer, query_BHTD=layer.query_BHTD.to(device), key_BKTD=layer.key_BKTD.to(device))
        for layer in random_layers(length, **SHAPE)
    ]
    panels = AttentionPanels(layers)
    question_1T, answer_1T = torch.zeros(2, 1, length, dtype=torch.bool, device=device)
    question_1T[:, : length // 8], answer_1T[:, -4:] = True, True
    found: dict[str, torch.Tensor] = {}

    def run(name: str) -> None:
        source = CachedPanels(panels) if name == "kept" else panels
        found[name] = solve(source, question_1T, answer_1T).flow_BT
        if device == "cuda":
            torch.cuda.synchronize()

    names = ("streamed", "kept") if length <= KEPT_UP_TO else ("streamed",)
    row: dict[str, Any] = {"length": length}
    for name in names:
        times: list[float] = []
        peak = peak_bytes(lambda name=name, times=times: times.append(seconds(lambda: run(name))))
        row[name] = {"seconds": times[0], "peak_bytes": peak if device == "cpu" else torch.cuda.max_memory_allocated()}
    if "kept" in found:
        row["largest_difference"] = float((found["streamed"] - found["kept"]).abs().max())
    return row


def measure_shared(prompt: int, response: int, group: int, rounds: int) -> dict[str, Any]:
    """Panels of a group with its prompt shared, and without."""
    length = prompt + response
    ids_BT = torch.randint(0, 9, (group, length), generator=torch.Generator().manual_seed(0))
    ids_BT[:, :prompt] = ids_BT[0, :prompt]
    layers = random_layers(length, batch=group, **SHAPE)
    sources = {"alone": AttentionPanels(layers), "shared": SharedPrefixPanels(layers, ids_BT)}
    question_BT, answer_BT = torch.zeros(2, group, length, dtype=torch.bool)
    question_BT[:, :prompt], answer_BT[:, -4:] = True, True
    calls = {
        name: lambda source=source: solve(CachedPanels(source), question_BT, answer_BT)
        for name, source in sources.items()
    }
    turns = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds + 1)][1:]
    return {
        "prompt": prompt,
        "response": response,
        "group": group,
        "shared_over_alone": statistics.median(turn["shared"] / turn["alone"] for turn in turns),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/length.json"))
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = options.lengths or (LENGTHS if device == "cpu" else LENGTHS + LONGER_ON_A_GPU)
    table = Table("tokens", "streamed, s", "peak", "kept, s", "peak", "largest difference")
    rows = []
    for length in lengths:
        row = measure_length(length, device)
        rows.append(row)
        cells = [
            cell
            for name in ("streamed", "kept")
            for cell in (
                (f"{row[name]['seconds']:.1f}", f"{(row[name]['peak_bytes'] or 0) / 2**20:,.0f} MiB")
                if name in row
                else ("-", "-")
            )
        ]
        difference = f"{row['largest_difference']:.1e}" if "largest_difference" in row else "-"
        table.add_row(f"{length:,}", *cells, difference)
    Console().print(table)
    shared = [measure_shared(prompt, 256, 8, options.rounds) for prompt in (256, 1024)]
    for row in shared:
        print(f"group of 8, prompt {row['prompt']}, response 256: shared takes {row['shared_over_alone']:.2f} of alone")
    result = {"machine": stamp(), "threads": torch.get_num_threads(), "shape": SHAPE, "lengths": rows, "shared": shared}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
