"""Many traces as pages: an index that sorts and filters, and one page for each trace, opened in place.

    out/index.html           a row for each trace, and for each rollout that could not be traced
    out/pages/<name>.html    the trace's own page, which stands alone as well

The index holds rows only; a trace's page is read when it is opened, in a frame, from the file beside it. So thousands
of traces open by a double click, without a server.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError
from flowtracer.report.page.html import one_line, render, trace_page, write_page
from flowtracer.report.page.payload import pack
from flowtracer.trace.measures import HUBS, concentration, hub_share, reward, verdict
from flowtracer.trace.trace import Skipped, Trace, load_trace

# A page beside the index, from the disk or from a server.
_FRAMES = "; frame-src 'self' file:"


def write_site(files: Sequence[Path], out: Path, skipped: Iterable[Skipped] = (), *, title: str = "Traces") -> Path:
    """Write the index and a page for each saved trace; returns the index.

    Raises:
        InputError: The folder cannot be written, or there is nothing to show.
        FormatError: A file that is no trace.
    """
    missing = [_skipped_row(item) for item in skipped]
    if not files and not missing:
        raise InputError("expected at least one trace, got none; trace some rollouts first")
    pages = out / "pages"
    try:
        pages.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {str(out)!r}: {error}") from error
    rows = []
    # Traces of several folders may share their names.
    alone = len({file.stem for file in files}) == len(files)
    for index, file in enumerate(files):
        trace = load_trace(file)
        name = file.stem if alone else f"{index:06d}-{file.stem}"
        write_page(pages / f"{name}.html", trace_page(trace))
        rows.append(_row(name, trace))
    content = render("index", title=one_line(title), extra_policy=_FRAMES, data=pack({"rows": rows + missing}, {}))
    return write_page(out / "index.html", content)


def read_skipped(file: Path) -> list[Skipped]:
    """What `flowtracer trace` noted of rollouts that it could not trace; nothing where there is no such file."""
    if not file.is_file():
        return []
    return [Skipped(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def _row(name: str, trace: Trace) -> dict[str, Any]:
    return {
        "page": f"pages/{name}.html",
        "name": one_line(str(trace.metadata.get("id") or name)),
        "verdict": verdict(trace),
        "answer": trace.answer_text,
        "found": trace.answer_rule,
        "reward": reward(trace),
        "tokens": len(trace),
        "concentration": concentration(trace),
        "hubs": hub_share(trace),
        "words": [trace.label(hub.token) for hub in trace.hubs(HUBS)],
    }


def _skipped_row(item: Skipped) -> dict[str, Any]:
    return {"page": None, "name": one_line(item.id), "reason": item.reason, "message": item.message}
