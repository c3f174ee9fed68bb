"""`flowtracer doctor`: what is installed, and how long a text fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flowtracer.cli.console import console, pairs

if TYPE_CHECKING:
    pass


def doctor(
    model: Annotated[str | None, typer.Option(help="Check that this model can be traced, and how long a text.")] = None,
) -> None:
    """Say what is installed and what this machine can do; with a model, whether and how long it can be traced."""
    from flowtracer.doctor import check_model, installed, machine

    console.print(pairs("machine", machine()))
    console.print(pairs("installed", installed()))
    if model is not None:
        with console.status(f"checking {model}"):
            report = check_model(model)
        console.print(pairs(model, report))
