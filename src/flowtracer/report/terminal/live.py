"""Training as it goes, at the terminal: a bar, and a curve in one line for each number that tells how it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

BLOCKS = "▁▂▃▄▅▆▇█"

SHOWN: Mapping[str, tuple[str, str]] = {
    "reward": ("reward of the samples", "{:.2f}"),
    "held_out/accuracy": ("held-out accuracy, greedy", "{:.1%}"),
    "credit/flow_in_boosted": ("share of flow in the boosted tokens", "{:.1%}"),
    "completions/mean_length": ("tokens of a response", "{:.0f}"),
}
"""What is shown of all that is logged: its label and its format."""


class TrainingView:
    """A live view, fed with logged lines; where nothing can be live, as in a file, evaluations are plain lines."""

    def __init__(self, console: Console, *, width: int = 40) -> None:
        self._console = console
        self._width = width
        self._values: dict[str, list[float]] = {name: [] for name in SHOWN}
        columns = (TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("training", total=None)
        self._live = Live(self._view(), console=console, refresh_per_second=4)
        self.started = False

    def __enter__(self) -> TrainingView:
        self._live.start()
        self.started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.update(self._view(), refresh=True)
        self._live.stop()

    def add(self, line: Mapping[str, Any]) -> None:
        """Show one logged line."""
        for name in SHOWN:
            if name in line:
                self._values[name].append(float(line[name]))
        self._progress.update(self._task, total=line["max_steps"], completed=line["step"])
        if self._console.is_terminal:
            self._live.update(self._view())
        elif "held_out/accuracy" in line:
            self._console.print(f"step {line['step']:>4}  held-out accuracy {line['held_out/accuracy']:.1%}")

    def _view(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, (label, form) in SHOWN.items():
            values = self._values[name]
            table.add_row(label, sparkline(values, self._width), form.format(values[-1]) if values else "")
        return Group(table, self._progress)


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve of at most `width` characters, each the mean of a stretch, between the least and the largest of them."""
    if not values:
        return ""
    columns = min(width, len(values))
    bounds = [round(column * len(values) / columns) for column in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)
