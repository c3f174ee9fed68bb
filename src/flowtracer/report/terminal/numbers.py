"""A table of names and numbers that no terminal cuts: narrower where it must be, never with a number left out.

1. Where the table fits, every interval stands beside its mean.
2. Where it does not, intervals go below their means.
3. Columns that still do not fit follow in a table of their own below, under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

_BETWEEN = 3
"""Characters between two columns: a line, and a space on either side."""

_EDGES = 2


class NumberTable:
    """Rows of names, then numbers, for `rich.print`; an interval in a cell is `mean [low, high]`."""

    def __init__(self, title: str, names: Sequence[str], numbers: Sequence[str]) -> None:
        self.title = title
        self._headers = [*names, *numbers]
        self._names = len(names)
        self._rows: list[Sequence[str]] = []

    def add_row(self, *cells: str) -> None:
        """One cell a column; names first."""
        if len(cells) != len(self._headers):
            raise ValueError(f"expected {len(self._headers)} cells, one a column, got {len(cells)}")
        self._rows.append(cells)

    def whole(self) -> Table:
        """All columns in one table, however wide."""
        return self._table(range(self._names, len(self._headers)), self._rows, {})

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Lay the columns out in the width that there is."""
        room = options.max_width - _EDGES
        beside = [self._width(column, self._rows, of_header=True) for column in range(len(self._headers))]
        if _total(beside) <= room or not self._rows or self._names == len(self._headers):
            yield self.whole()
            return
        rows = [[cell.replace(" [", "\n[") for cell in row] for row in self._rows]
        widths = {column: self._width(column, rows) for column in range(self._names, len(self._headers))}
        names = _total([min(width, room // 3) for width in beside[: self._names]])  # longer ones are folded
        for number, chosen in enumerate(_chunks(widths, room - names - _BETWEEN)):
            yield self._table(chosen, rows, widths, titled=number == 0)

    def _table(
        self, numbers: Sequence[int], rows: Sequence[Sequence[str]], widths: dict[int, int], *, titled: bool = True
    ) -> Table:
        table = Table(title=Text(self.title) if titled and self.title else None, title_justify="left", pad_edge=False)
        for column in range(self._names):
            table.add_column(Text(self._headers[column]), overflow="fold")
        for column in numbers:
            table.add_column(Text(self._headers[column]), justify="right", width=widths.get(column), overflow="fold")
        for row in rows:
            table.add_row(*(Text(row[column]) for column in (*range(self._names), *numbers)))
        return table

    def _width(self, column: int, rows: Sequence[Sequence[str]], *, of_header: bool = False) -> int:
        """Of the widest cell, and of the header: all of it, or its longest word, between which it may break."""
        header = self._headers[column]
        lines = [header] if of_header else header.split()
        lines += [line for row in rows for line in row[column].split("\n")]
        return max((cell_len(line) for line in lines), default=0)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)


def _chunks(widths: dict[int, int], room: int) -> Iterator[list[int]]:
    """Columns in their order, as many at a time as fit; one at least."""
    chunk: list[int] = []
    for column in widths:
        if chunk and _total([widths[other] for other in (*chunk, column)]) > room:
            yield chunk
            chunk = []
        chunk.append(column)
    if chunk:
        yield chunk
