"""The part of docs/benchmarks.md that `make gpu` measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import machine, markdown, step_table


def gpu_section(file: Path) -> list[str]:
    """What `make gpu` wrote into a file, or that it has not been run."""
    title = "## On a GPU"
    if not file.exists():
        return [
            title,
            "Not measured yet: no GPU was at hand. `make gpu` does it in nine minutes on one of 80 GB, without any "
            "download: the kernels against float64, their share of the machine's floors at 1K, 8K and 32K tokens, "
            "credit's share of a GRPO step of a model of 4 B parameters, and whole traces of 8K, 32K and 128K tokens.",
        ]
    result = json.loads(file.read_text())
    parts = [title, f"The kernels against float64 on the GPU: {result['against_float64']['summary'].strip('= ')}."]
    for section, name in ((kernel_section, "kernel"), (gpu_step_section, "step_share"), (long_section, "long_trace")):
        part = result[name]
        parts += section(part) if part.keys() - {"failure", "summary"} else []
        parts += [f"`{name}` did not end: {part['failure']}."] if part["failure"] else []
    return [*parts, machine({**result, "threads": 0})]


def kernel_section(result: dict[str, Any]) -> list[str]:
    """Every row of one layer's head mean."""
    shape = result["shape"]
    rows = (
        [
            f"{row['length']:,}",
            *(f"{1000 * row['seconds'][name]:.3f}" for name in ("triton", "torch")),
            *(f"{1000 * row['floor_seconds'][name]:.3f}" for name in ("bytes", "work")),
            f"{row['share_of_floor']:.0%}",
        ]
        for row in result["lengths"]
    )
    return [
        f"Milliseconds for every row of one layer of {shape['heads']} heads of width {shape['width']} in "
        f"{shape['dtype']}, and the least that bytes moved and work done could take.",
        markdown(("tokens", "kernels", "torch", "bytes", "work", "share of the larger floor"), rows),
    ]


def gpu_step_section(result: dict[str, Any]) -> list[str]:
    """Credit within a GRPO step of a large model."""
    return [
        "A GRPO step of a random model of 4 B parameters, 128 tokens sampled, an optimiser without state.",
        step_table(result),
    ]


def long_section(result: dict[str, Any]) -> list[str]:
    """Whole traces of long texts."""
    kinds = ("forward", "trace without heads", "trace")
    rows = (
        [
            f"{row['length']:,}",
            *(
                cell
                for kind in kinds
                for cell in (f"{row[kind]['seconds']:.2f}", f"{(row[kind]['peak_bytes'] or 0) / 2**30:.1f}")
            ),
            f"{row['conservation_error']:.0e}",
        ]
        for row in result["lengths"]
    )
    header = (text for kind in kinds for text in (f"{kind}, s", "GiB"))
    return [
        "A whole trace of a random model of 4 B parameters, beside a forward without LM head; GiB stand above its "
        "weights, and the last column is what conservation breaks by.",
        markdown(("tokens", *header, "breaks by"), rows),
    ]
