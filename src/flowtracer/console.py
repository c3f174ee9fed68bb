"""The terminal that commands write to, and their progress bar."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

console = Console()


def progress(what: str, total: int | None) -> Progress:
    """A bar with one task; `total` is None where the end is not known."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console)
    bar.add_task(what, total=total)
    return bar
