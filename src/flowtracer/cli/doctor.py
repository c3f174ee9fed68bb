"""`flowtracer doctor`: what is installed, how long a text fits, and what to do next."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, errors, pairs, print_json


def doctor(
    model: Annotated[str | None, typer.Option(help="Check that this model can be traced, and how long a text.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed and what this machine can do; with a model, whether and how long it can be traced."""
    from flowtracer.doctor import check_model, installed, machine, next_steps

    parts = {"machine": machine(), "installed": installed()}
    if model is not None:
        with errors.status(f"checking {model}"):
            parts[model] = check_model(model)
    steps = next_steps(parts["installed"], model)
    if as_json:
        print_json({**parts, "next": steps})
        return
    for title, rows in parts.items():
        console.print(pairs(title, rows))
    for what, command in steps.items():  # each on a line of its own, to be copied whole
        console.print(Text(f"{what}:\n    {command}"), soft_wrap=True)
