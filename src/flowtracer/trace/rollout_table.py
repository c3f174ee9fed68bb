"""One row a rollout: what a trace comes to in single numbers, or why there is none.

Rows are plain dictionaries of `COLUMNS`; a Parquet table of them is read by pandas, polars and DuckDB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError
from flowtracer.folders import write_atomically
from flowtracer.text.printable import well_formed
from flowtracer.trace.measures import HUBS, concentration, hub_share, reward
from flowtracer.trace.trace import Skipped, Trace

Row = Mapping[str, Any]

_OF_THE_ROLLOUT = {
    "place": "int64",
    "id": "string",
    "key": "string",
    "trace": "string",
    "correct": "bool",
    "reward": "float64",
    "metadata": "string",
}
MEASURED = {
    "reason": "string",
    "message": "string",
    "tokens": "int32",
    "response_tokens": "int32",
    "answer": "string",
    "answer_rule": "string",
    "concentration": "float64",
    "hub_share": "float64",
    "hubs": "list<string>",
    "backbone_edges": "int32",
    "conservation_error": "float64",
}
"""Columns that follow from the text and the model alone; null where there is no trace, or where there is one."""
COLUMNS = {**_OF_THE_ROLLOUT, **MEASURED}
"""Names and types; docs/rollouts.md says what each is."""


def labels(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of its rollout, and no model has read."""
    correct = metadata.get("is_correct")
    return {
        "correct": None if correct is None else bool(correct),
        "reward": reward(metadata),
        "metadata": json.dumps({name: value for name, value in metadata.items() if name != "id"}),
    }


def traced_row(trace: Trace) -> dict[str, Any]:
    """What a trace comes to, with the labels of its rollout."""
    hubs = trace.hubs(HUBS)
    return {
        **labels(trace.metadata),
        "tokens": len(trace),
        "response_tokens": len(trace.response),
        "answer": trace.answer_text,
        "answer_rule": trace.answer_rule,
        "concentration": concentration(trace),
        "hub_share": hub_share(trace, hubs),
        "hubs": [hub.label for hub in hubs],
        "backbone_edges": len(trace.backbone(0.5).edges),
        "conservation_error": trace.conservation_error(),
    }


def skipped_row(skipped: Skipped) -> dict[str, Any]:
    """Why there is no trace."""
    return {"id": skipped.id, "reason": skipped.reason, "message": skipped.message}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a table of rows, whole or not at all; columns that a row lacks are null in it."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([{name: _storable(row.get(name)) for name in COLUMNS} for row in rows], _schema())
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_rows(files: Iterable[Path], columns: Iterable[str] = tuple(COLUMNS)) -> Iterator[dict[str, Any]]:
    """Rows of tables that `write_rows` wrote, a file at a time.

    Raises:
        FormatError: A file that is no such table.
    """
    import pyarrow.parquet

    names = list(columns)
    for file in files:
        try:
            rows = pyarrow.parquet.read_table(file, columns=names, partitioning=None).to_pylist()
        except (OSError, ValueError, LookupError) as error:  # pyarrow's own are such
            raise FormatError(
                f"expected a table of rollouts, got {str(file)!r}: {error}; delete it, and run again"
            ) from error
        yield from rows


def _schema() -> Any:
    import pyarrow

    kinds = {"string": pyarrow.string(), "list<string>": pyarrow.list_(pyarrow.string()), "bool": pyarrow.bool_()}
    kinds |= {name: getattr(pyarrow, name)() for name in ("int32", "int64", "float64")}
    return pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def _storable(value: Any) -> Any:
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    return well_formed(value) if isinstance(value, str) else value
