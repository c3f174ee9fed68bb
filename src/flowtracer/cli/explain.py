"""`flowtracer explain`: what carried the answer, in plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowtracer.cli.console import AsJson, print_json
from flowtracer.cli.options import load_traces


def explain(
    traces: Annotated[list[Path], typer.Argument(help="Traces, or folders of them.")],
    hubs: Annotated[int, typer.Option(min=1, help="How many hubs.")] = 8,
    paths: Annotated[int, typer.Option(min=1, help="How many paths.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say in plain text what carried the answer: summary, hubs, strongest paths, steps, layers."""
    from flowtracer.report.explain import explain as as_text
    from flowtracer.report.explain import explanation

    for _, trace in load_traces(traces):
        if as_json:
            print_json(explanation(trace, hubs=hubs, paths=paths))
        else:
            typer.echo(as_text(trace, hubs=hubs, paths=paths))
