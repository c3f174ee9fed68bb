"""A Parquet table with one row a token over many traces, for pandas, polars and DuckDB."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flowtracer.errors import FormatError, InputError
from flowtracer.text.printable import well_formed
from flowtracer.trace.trace import Trace


class TokenTableWriter:
    """Streams a Parquet table with one row a token, over many traces.

    The file appears under its name only when the block ends well, so an interrupted run leaves no half table.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """

    ROWS_PER_GROUP = 1 << 14
    """A group for each trace would cost more in headers than in tokens."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        self._writer: Any = None
        self._pending: list[Any] = []

    def __enter__(self) -> TokenTableWriter:
        import pyarrow.parquet

        if self._path.is_dir():
            raise InputError(f"expected the name of a file, got {str(self._path)!r}, which is a folder")
        try:
            self._writer = pyarrow.parquet.ParquetWriter(self._partial, _schema(), compression="zstd")
        except OSError as error:
            message = f"expected a folder that can be written, got {str(self._path.parent)!r}: {error}; make it first"
            raise InputError(message) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self._writer:
                if kind is None:
                    self._flush()
            if kind is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, name: str, trace: Trace) -> None:
        """Append the tokens of one trace."""
        import pyarrow

        self._append(pyarrow.table(_columns(name, trace), schema=_schema()))

    def copy(self, name: str, file: Path, of: str) -> None:
        """Append the tokens that another table holds of the trace `of`, under a new name.

        Raises:
            FormatError: The other is no such table.
        """
        import pyarrow
        import pyarrow.parquet

        try:
            held = pyarrow.parquet.read_table(file, filters=[("trace", "=", of)], schema=_schema(), partitioning=None)
        except (OSError, ValueError, LookupError) as error:  # pyarrow's own are such
            raise FormatError(f"expected a table of tokens, got {str(file)!r}: {error}; trace again") from error
        if not len(held):
            raise FormatError(f"expected the tokens of {of!r} in {str(file)!r}, got none; trace again")
        names = pyarrow.array([well_formed(name)] * len(held), pyarrow.string())
        self._append(held.set_column(0, "trace", names))

    def _append(self, table: Any) -> None:
        self._pending.append(table)
        if sum(map(len, self._pending)) >= self.ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._pending:
            self._writer.write_table(pyarrow.concat_tables(self._pending))
            self._pending.clear()


def _schema() -> Any:
    import pyarrow as pa

    kinds = {
        "trace": pa.string(),
        "position": pa.int32(),
        "token_id": pa.int64(),
        "token": pa.string(),
        "region": pa.dictionary(pa.int8(), pa.string()),
        "step": pa.int32(),
        **dict.fromkeys(_MEASURES, pa.float64()),
    }
    return pa.schema(list(kinds.items()))


_MEASURES = ("reach", "flow", "throughput", "fan_in", "fan_out")


def _columns(name: str, trace: Trace) -> dict[str, Any]:
    length = len(trace)
    region = np.full(length, "prompt", dtype=object)
    region[trace.response.start :] = "reasoning"
    region[trace.answer.stop :] = "after"
    region[trace.answer.start : trace.answer.stop] = "answer"
    step = np.repeat(np.arange(len(trace.step_spans)), [len(span) for span in trace.step_spans])
    return {
        "trace": [well_formed(name)] * length,
        "position": np.arange(length),
        "token_id": trace.token_ids,
        "token": [well_formed(token) for token in trace.tokens],
        "region": region.tolist(),
        "step": step,
        **{measure: getattr(trace, measure) for measure in _MEASURES},
    }
