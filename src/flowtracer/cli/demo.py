"""`flowtracer demo`: a small model learns by flow credit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, pairs, print_json

if TYPE_CHECKING:
    from flowtracer.demo import Change


def demo(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, responses, traces and pages.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option(help="A few steps, to see every part move in less than a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Of training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a small model with flow credit, measure what it gained, and trace how its reasoning changed.

    Needs neither a GPU nor a network. Started again, an interrupted demo goes on.
    """
    from flowtracer.demo import FULL, QUICK, run_demo
    from flowtracer.report.terminal.live import TrainingView

    started = time.perf_counter()
    folder = out / "quick" if quick else out
    view = TrainingView(console)
    with contextlib.ExitStack() as live:

        def on_stage(text: str) -> None:
            live.close()
            console.rule(Text(text), align="left", style="dim")

        def on_log(line: Mapping[str, Any]) -> None:
            if not view.started:
                live.enter_context(view)
            view.add(line)

        result = run_demo(folder, scale=QUICK if quick else FULL, seed=seed, on_stage=on_stage, on_log=on_log)
    if result.change is None:
        console.print("no problem went from wrong to right")
    else:
        _show_change(result.change)
    console.rule(style="dim")
    accuracies = {
        "before": result.before.percent(),
        "after": result.after.percent(),
        "gain": result.gain.percent("points"),
    }
    accuracies["minutes"] = f"{(time.perf_counter() - started) / 60:.1f}"
    if as_json:
        print_json({name: asdict(getattr(result, name)) for name in ("before", "after", "gain")})
        return
    title = f"greedy accuracy on {result.before.items} held-out problems, with 95 % intervals"
    console.print(pairs(title, accuracies))


def _show_change(change: Change) -> None:
    console.print(Text(change.question, style="bold"))
    for name, trace in zip(("before", "after"), change.traces, strict=True):
        console.print(Text(f"\n{name}: {trace.summary()}", style="bold"), soft_wrap=True)
        console.print(Text(trace.text[trace.offsets[trace.response.start, 0] :].rstrip()))
        for path in trace.paths(1):
            console.print(Text(f"strongest path: {path.way}"))
    console.print(Text(f"\npage: {change.page}", style="bold"), soft_wrap=True)
