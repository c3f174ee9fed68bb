"""`flowtracer train`: GRPO with per-token credit, as a run file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, print_json, progress

SHOWN = {
    "reward": "reward {:.3f}",
    "credit/traced": "traced {:.0%}",
    "credit/boosted_share": "boost {:.0%}",
    "credit/flow_in_boosted": "flow {:.0%}",
    "step_time": "{:.1f} s",
}
"""What a line of training shows, of all that is logged: within 80 columns, so that a terminal keeps it on one line."""


def training_line(line: Mapping[str, Any]) -> str:
    """A logged step in a line; empty where it tells of none, as after the last."""
    parts = [form.format(line[name]) for name, form in SHOWN.items() if name in line]
    if "step_time" in line and "credit/seconds" in line:
        parts[-1] += f", credit {line['credit/seconds'] / line['step_time']:.0%}"
    return "  ".join([f"step {line['step']:>4}", *parts]) if parts else ""


def train(
    run_file: Annotated[Path, typer.Argument(help="TOML run file: model, task, credit, TRL's options.")],
    as_json: AsJson = False,
) -> None:
    """Train with GRPO and per-token credit, as a run file says.

    A run that was interrupted goes on from its last checkpoint, and one that is done says so. Every logged step is a
    line of log.jsonl; with --json, it is printed as well.
    """
    from flowtracer.rl.run import LogLine, read_run_file
    from flowtracer.rl.run import train as run_training

    run = read_run_file(run_file)
    with progress("training", None) as bar:

        def on_log(line: LogLine) -> None:
            bar.update(bar.task_ids[0], total=line["max_steps"], completed=line["step"])
            if as_json:
                print_json(line)
                return
            if text := training_line(line):
                bar.console.print(text, highlight=False, soft_wrap=True)

        def on_say(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        final = run_training(run, on_log=on_log, on_say=on_say)
        bar.update(bar.task_ids[0], visible=bar.tasks[0].total is not None)  # nothing of a run that was done before
    console.print(Text(f"model and log written to {final.parent}", style="dim"), soft_wrap=True)
