"""What an experiment found, as results/NAME.json, stamped with the machine, and results/NAME.md."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from flowtracer.report.terminal.numbers import NumberTable
from flowtracer.study.machine import stamp

RESULTS = Path(__file__).with_name("results")


def write_outcome(
    name: str, document: Mapping[str, Any], tables: Iterable[Table | NumberTable], *, heading: str
) -> str:
    """Write both files; the text of the second."""
    RESULTS.mkdir(exist_ok=True)
    stamped = {"machine": stamp(), **document}
    (RESULTS / f"{name}.json").write_text(json.dumps(stamped, indent=1) + "\n")
    text = f"# {heading}\n\n{markdown(tables)}"
    (RESULTS / f"{name}.md").write_text(text)
    return text


def markdown(tables: Iterable[Table | NumberTable]) -> str:
    """Tables that a command prints at the terminal."""
    text = io.StringIO()
    for made in tables:
        table = made.whole() if isinstance(made, NumberTable) else made
        table.box = box.MARKDOWN
        title, table.title = table.title, None
        text.write(f"{title}\n")
        Console(file=text, width=200).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
