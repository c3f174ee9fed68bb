"""`flowtracer train`: GRPO with per-token credit, as a run file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, print_json, progress

TRAINING_COLUMNS = {
    "reward": "reward",
    "credit/traced": "traced",
    "credit/boosted_share": "boosted",
    "credit/flow_in_boosted": "their flow",
    "credit/seconds": "credit s",
    "step_time": "step s",
}
"""What a line of training shows, of all that is logged."""


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
            columns = [f"{label} {line[name]:.3f}" for name, label in TRAINING_COLUMNS.items() if name in line]
            if columns:
                bar.console.print(f"step {line['step']:>4}  " + "  ".join(columns), highlight=False, soft_wrap=True)

        def on_say(text: str) -> None:
            console.print(Text(text), soft_wrap=True)

        final = run_training(run, on_log=on_log, on_say=on_say)
        bar.update(bar.task_ids[0], visible=bar.tasks[0].total is not None)  # nothing of a run that was done before
    console.print(Text(f"model and log written to {final.parent}", style="dim"), soft_wrap=True)
