"""Many traces as pages: an index that sorts and filters, and one page for each trace, opened in place.

    out/index.html           a row for each trace, and for each rollout that could not be traced
    out/pages/<name>.html    the trace's own page, which stands alone as well
    out/pages.jsonl          what each page was made of, and its row

The index holds rows only; a trace's page is read when it is opened, in a frame, from the file beside it. So thousands
of traces open by a double click, without a server. A page is not written anew where its trace's file and the programs
and assets beside this one are what they were, and goes when it is no longer in the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from flowtracer import __version__
from flowtracer.errors import FormatError, InputError
from flowtracer.folders import LineFile, as_lines, digest, write_atomically
from flowtracer.report.page.html import render, trace_page, write_page
from flowtracer.report.page.payload import pack
from flowtracer.text.printable import one_line
from flowtracer.trace.measures import made_by
from flowtracer.trace.rollout_table import Row, traced_row
from flowtracer.trace.trace import Skipped, Trace, load_trace

MOST_ROWS = 200_000
"""Rows of an index: a browser holds, sorts and filters these without a pause that one feels."""

# A page beside the index, from the disk or from a server.
_FRAMES = "; frame-src 'self' file:"


def write_site(
    files: Sequence[Path],
    out: Path,
    skipped: Iterable[Skipped] = (),
    *,
    title: str = "Traces",
    on_bad: Callable[[Path, FormatError], None] | None = None,
) -> Path:
    """Write the index and a page for each saved trace; returns the index.

    Args:
        files: Of the traces.
        out: Made if it does not exist.
        skipped: Rollouts without a trace.
        title: Of the index.
        on_bad: Called with a file that is no trace, which is then left out.

    Raises:
        InputError: The folder cannot be written, or there is nothing to show.
        FormatError: A file that is no trace, without `on_bad`; or none of them is one.
    """
    missing = [_skipped_row(item) for item in skipped]
    if not files and not missing:
        raise InputError("expected at least one trace, got none; trace some rollouts first")
    pages = out / "pages"
    try:
        pages.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {str(out)!r}: {error}") from error
    lines = LineFile(out / "pages.jsonl")
    held = {line["key"]: line for line in lines.lines() if (pages / f"{line['name']}.html").is_file()}
    wanted: dict[str, dict[str, Any]] = {}
    # Traces of several folders may share their names.
    alone = len({file.stem for file in files}) == len(files)
    for index, file in enumerate(files):
        name = file.stem if alone else f"{index:06d}-{file.stem}"
        key = digest(name, _sha256(file), _makers())
        if key not in held:
            try:
                held[key] = {"key": key, "name": name, "row": _write(pages, name, load_trace(file))}
            except FormatError as error:
                if on_bad is None:
                    raise
                on_bad(file, error)
                continue
            lines.add([held[key]])
        wanted[name] = held[key]
    if not wanted and not missing:
        raise FormatError(f"expected at least one trace that can be read, got none of {len(files)} files")
    for name in {line["name"] for line in lines.lines()} - wanted.keys():
        (pages / f"{name}.html").unlink(missing_ok=True)
    write_atomically(lines.path, as_lines(wanted.values()))
    return _write_index(out, [line["row"] for line in wanted.values()] + missing, title)


def write_table_index(rows: Iterable[Row], out: Path, *, title: str = "Rollouts") -> Path:
    """Write the index over rows of a table of rollouts, without pages; returns it.

    Args:
        rows: The first `MOST_ROWS` of them are shown.
        out: The folder, which must exist.
        title: Of the index.
    """
    shown = [
        _shown(row)
        if row["reason"] is None
        else _skipped_row(Skipped(id=row["id"], reason=row["reason"], message=row["message"]))
        for row in islice(rows, MOST_ROWS + 1)
    ]
    if len(shown) > MOST_ROWS:
        title = f"{title}: the first {MOST_ROWS:,}"
    return _write_index(out, shown[:MOST_ROWS], title)


def _write_index(out: Path, rows: list[dict[str, Any]], title: str) -> Path:
    content = render("index", title=one_line(title), extra_policy=_FRAMES, data=pack({"rows": rows}, {}))
    return write_page(out / "index.html", content)


def _write(pages: Path, name: str, trace: Trace) -> dict[str, Any]:
    write_page(pages / f"{name}.html", trace_page(trace))
    return _row(name, trace)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def _makers() -> str:
    """What pages are made by."""
    files = sorted(file for file in Path(__file__).parent.rglob("*") if file.suffix in (".py", ".j2", ".js"))
    return digest(__version__, [[file.name, _sha256(file)] for file in files])


def read_skipped(file: Path) -> list[Skipped]:
    """What `flowtracer trace` noted of rollouts that it could not trace; nothing where there is no such file."""
    return [Skipped(**line) for line in LineFile(file).lines()]


def _row(name: str, trace: Trace) -> dict[str, Any]:
    called = str(trace.metadata.get("id") or name)
    return {**_shown({**traced_row(trace), "id": called}, page=f"pages/{name}.html"), "made": one_line(made_by(trace))}


def _shown(row: Row, page: str | None = None) -> dict[str, Any]:
    """A row of the index out of one of a table of rollouts."""
    correct = row["correct"]
    return {
        "page": page,
        "name": one_line(row["id"]),
        "verdict": None if correct is None else "right" if correct else "wrong",
        "answer": row["answer"],
        "found": row["answer_rule"],
        "reward": row["reward"],
        "tokens": row["tokens"],
        "concentration": row["concentration"],
        "hubs": row["hub_share"],
        "words": row["hubs"],
    }


def _skipped_row(item: Skipped) -> dict[str, Any]:
    return {"page": None, "name": one_line(item.id), "reason": item.reason, "message": item.message}
