"""The terminal that commands write to: progress bar, warnings, tables of names and values, and where files went.

With `--json` the standard output has JSON alone, for another program; everything else goes beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

console = Console()
errors = Console(stderr=True)
"""Beside what a command prints, which another program may read."""


def speak_beside(asked: bool) -> bool:
    """Where JSON is asked for, leave the standard output to it."""
    console.stderr = asked
    return asked


AsJson = Annotated[bool, typer.Option("--json", callback=speak_beside, help="Print JSON, and nothing else.")]


def print_json(content: Any) -> None:
    """One line of JSON; a number that is none is null."""
    typer.echo(json.dumps(_finite(content), allow_nan=False))


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def progress(what: str, total: int | None) -> Progress:
    """A bar with one task; `total` is None where the end is not known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console)
    bar.add_task(what, total=total)
    return bar


def pairs(title: str, rows: Mapping[str, str]) -> Table:
    """A table of names and values without lines."""
    table = Table(title=Text(title), title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", min_width=22)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def say_written(path: Path) -> None:
    """Where the result is."""
    console.print(Text(f"written to {path}", style="dim"), soft_wrap=True)


def warn(text: str, to: Console = console) -> None:
    """Something that was left out, and why; the others go on."""
    to.print(Text(text, style="yellow"), soft_wrap=True)
