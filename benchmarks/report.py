"""docs/benchmarks.md and its picture out of benchmarks/results/*.json.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from flowtracer.report.figures.style import BLUE, GREEN, INK, ORANGE, VERMILLION, WIDTH, styled
from gpu_report import gpu_section
from tables import machine, markdown, step_table
from whole_trace import measured

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write the page and the picture."""
    trace, whole, solve, scaling, length, step, panels, capacity = (
        read(name)
        for name in (
            *("trace_cost", "whole_trace", "flow_solve", "scaling", "length", "step_share", "cpu_panels"),
            "capacity_cost",
        )
    )
    parts = [
        "# Benchmarks",
        "`make bench` measures all of this again and rewrites this page. Both sides of a ratio run in turns within one "
        "process; times are medians.",
        "![Seconds over tokens: a trace beside a forward and beside all maps; the solve beside general solvers]"
        "(benchmarks.svg)",
        *trace_section(trace),
        *whole_section(whole),
        *capacity_section(capacity),
        *solve_section(solve),
        *length_section(length),
        *step_section(step),
        *scaling_section(scaling),
        *panels_section(panels),
        *gpu_section(RESULTS / "gpu.json"),
        "Others: [credit](credit.md) has what each strategy costs, [the page](page.md) its own budgets.",
    ]
    (DOCS / "benchmarks.md").write_text("\n\n".join(parts) + "\n")
    with styled():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_trace(left, trace)
        draw_solve(right, solve)
        figure.savefig(DOCS / "benchmarks.svg")


def read(name: str) -> dict[str, Any]:
    """One result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def growth(result: dict[str, Any]) -> str:
    """How times grew with length."""
    grown = ", ".join(f"{name} {slope:.2f}" for name, slope in result["growth"].items())
    return f"Exponents of growth from 1,024 tokens on: {grown}."


def trace_section(result: dict[str, Any]) -> list[str]:
    """A whole trace beside a forward and beside all maps."""

    def cells(row: dict[str, Any]) -> list[str]:
        times, over, peaks = row["seconds"], row["trace_over"], row["peak_bytes"]
        ways = ("plain forward", "trace", "obvious way")
        return [
            f"{row['length']:,}",
            *(f"{times[name]:.2f}" if name in times else "-" for name in ways),
            *(f"{over[name]:.2f}" if name in over else "-" for name in ("plain forward", "obvious way")),
            f"{row['parts_of_trace']['solve'] / times['trace']:.2%}",
            *(f"{peaks[name] / 2**20:,.0f}" if peaks.get(name) is not None else "-" for name in ways),
        ]

    header = ("tokens", "plain, s", "trace, s", "obvious, s", "trace / plain", "trace / obvious", "solve / trace")
    return [
        "## A whole trace",
        f"{result['model']}. *Plain* is a forward with LM head. A *trace* is the truncated forward, attention, flow, "
        "edges, fans and heads. The *obvious way* is `output_attentions=True` on eager attention and numpy loops; a "
        "dash where its maps do not fit. Memory is the peak above the resting process, in MiB.",
        markdown([*header, "plain, MiB", "trace, MiB", "obvious, MiB"], map(cells, result["lengths"])),
        growth(result),
        machine(result),
    ]


def whole_section(result: dict[str, Any]) -> list[str]:
    """Memory of whole traces over lengths."""

    def cells(row: dict[str, Any]) -> list[str]:
        measurements = (cell for kind in ("streamed", "kept") for cell in measured(row.get(kind)))
        return [f"{row['length']:,}", f"{row['steps']:,}", *measurements]

    shape = result["shape"]
    header = ("streamed, MiB", "s", "processor s", "kept, MiB", "s", "processor s")
    return [
        "## Memory of a whole trace",
        f"`Tracer.trace` from text to `Trace`, flow between sentences and heads included, with a random model of "
        f"{shape['layers']} layers of width {shape['width']} and sentences of {result['step_tokens']} tokens. "
        "*Streamed* keeps nothing of size T x T and computes the panels of attention in every pass; *kept* computes "
        "them once. MiB are the peak above the process at rest; a panel's scores take at most 32 MiB, however long the "
        "text. Processor seconds leave out what else the machine did.",
        markdown(["tokens", "sentences", *header], map(cells, result["lengths"])),
        growth(result),
        machine(result),
    ]


def capacity_section(result: dict[str, Any]) -> list[str]:
    """What each capacity costs, over tokens and over layers."""
    lengths = result["lengths"]
    rows = (
        (name, *(f"{row['over_attention'][name]:.2f} x" for row in lengths)) for name in lengths[0]["over_attention"]
    )
    return [
        "## Other capacities",
        f"{result['model']}: a whole trace by each capacity and graph, heads left out, over that of attention over "
        "tokens, in processor time; a plain forward with LM head beside them. Over tokens the middle third of the "
        "layers is read, over layers all are; `gradient` runs the whole model and a backward pass.",
        markdown(("", *(f"{row['tokens']:,} tokens" for row in lengths)), rows),
        machine(result),
    ]


def solve_section(result: dict[str, Any]) -> list[str]:
    """The solve beside general solvers."""
    names = list(result["lengths"][0]["seconds"])

    def cell(times: dict[str, float], name: str) -> str:
        if name not in times:
            return "-"
        if name == "panels":
            return f"{1000 * times[name]:,.1f}"
        ratio = times[name] / times["panels"]
        return f"{1000 * times[name]:,.1f} ({ratio:,.{0 if ratio >= 10 else 1}f} x)"

    rows = ([f"{row['length']:,}", *(cell(row["seconds"], name) for name in names)] for row in result["lengths"])
    return [
        "## The solve alone",
        "Milliseconds for reach and flow of one matrix, and how many times what the panels take. `networkx` is maximum "
        "flow by Edmonds and Karp, as in Abnar and Zuidema's attention flow: one number, where the others give every "
        "token's share. A dash where it would take more than a minute.",
        markdown(["tokens", *names], rows),
        growth(result),
        machine(result),
    ]


def length_section(result: dict[str, Any]) -> list[str]:
    """Long texts, and shared prompts."""

    def cells(row: dict[str, Any]) -> list[str]:
        measured = [
            text
            for kind in ("streamed", "kept")
            for text in (
                (f"{row[kind]['seconds']:.1f}", f"{(row[kind]['peak_bytes'] or 0) / 2**20:,.0f}")
                if kind in row
                else ("-", "-")
            )
        ]
        return [f"{row['length']:,}", *measured]

    shape = result["shape"]
    shared = [
        f"{row['shared_over_alone']:.2f} with prompts of {row['prompt']:,} and responses of {row['response']} tokens"
        for row in result["shared"]
    ]
    return [
        "## Long texts",
        f"Reach and flow over synthetic queries and keys, {shape['layers']} layers of {shape['heads']} heads of width "
        f"{shape['width']}. *Streamed* keeps nothing of size T x T and computes every panel twice. MiB are the peak "
        "above the queries and keys.",
        markdown(("tokens", "streamed, s", "MiB", "kept, s", "MiB"), map(cells, result["lengths"])),
        f"A group of 8 that shares its prompt's rows takes {', '.join(shared)}, of what it takes without.",
        machine(result),
    ]


def step_section(result: dict[str, Any]) -> list[str]:
    """Credit within a GRPO step."""
    paper = " and ".join(f"{share:+.1%} ({name})" for name, share in result["paper"].items())
    return [
        "## Credit in a GRPO step",
        "A step of TRL's with `flow` over one with `uniform`, from the same weights and the same samples; the share of "
        "the time inside credit, and what it would be with a forward of its own; responses that took one all the same.",
        step_table(result),
        "Whole steps of trainers that do the same differ by a few percent; the time inside is the steadier number. "
        f"The paper reports {paper}.",
        machine(result),
    ]


def scaling_section(result: dict[str, Any]) -> list[str]:
    """Many traces together."""
    rows = (
        [
            row["rollouts"],
            str(row["together"]),
            f"{row['milliseconds_a_trace']:.1f}",
            f"{row['alone_over_together']:.1f}",
        ]
        for row in result["rows"]
    )
    return [
        "## Many together",
        "nano, texts of about a hundred tokens: milliseconds a trace.",
        markdown(["rollouts", "together", "ms a trace", "times as fast as alone"], rows),
        machine(result),
    ]


def panels_section(result: dict[str, Any]) -> list[str]:
    """How attention is averaged on a CPU, and what else was tried."""
    lengths = result["lengths"]

    def cells(name: str) -> list[str]:
        if name == "chosen":
            rows = " and ".join(str(count) for count in dict.fromkeys(row["rows"] for row in lengths))
            return [f"chosen: {rows} rows", *(f"{1000 * row['seconds'][name]:,.0f} ms" for row in lengths), ""]
        error = max(row["error"][name] for row in lengths)
        return [name, *(f"{row['over_chosen'][name]:.2f} x" for row in lengths), f"{error:.0e}" if error else "0"]

    shape = result["shape"]
    return [
        "## Panels on a CPU",
        f"All rows of the head mean of {shape['layers']} layers with {shape['heads']} heads of width {shape['width']}, "
        "and what else torch offers: other panels, the upper triangle computed too, a head at a time, a softmax in "
        "memory of its own, products in bfloat16. The error is the largest of any entry of `W`.",
        markdown(
            ("way", *(f"{row['length']:,} tokens" for row in lengths), "error"), map(cells, lengths[0]["seconds"])
        ),
        machine(result),
    ]


def draw_trace(axes: Axes, result: dict[str, Any]) -> None:
    """Seconds over tokens."""
    axes.set(title=f"A whole trace, {result['model']}", ylabel="seconds")
    draw_times(axes, result, {"plain forward": INK, "trace": BLUE, "obvious way": VERMILLION})


def draw_solve(axes: Axes, result: dict[str, Any]) -> None:
    """Seconds over tokens."""
    axes.set(title="The solve alone", ylabel="seconds")
    colours = {"panels": BLUE, "reference": INK, "torch.linalg": ORANGE, "scipy sparse": GREEN, "networkx": VERMILLION}
    draw_times(axes, result, colours)


def draw_times(axes: Axes, result: dict[str, Any], colours: dict[str, str]) -> None:
    """One line a name, over logarithmic axes in plain numbers."""
    for name, colour in colours.items():
        points = [(row["length"], row["seconds"][name]) for row in result["lengths"] if name in row["seconds"]]
        axes.loglog(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
    lengths = [row["length"] for row in result["lengths"]]
    axes.set_xticks(lengths, [f"{n // 1024}K" if n >= 1024 else f"{n}" for n in lengths], minor=False)
    axes.set_xlabel("tokens")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, columnspacing=1, handlelength=1.2)


if __name__ == "__main__":
    main()
