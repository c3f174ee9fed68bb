"""`flowtracer page`: traces, or a training, as pages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flowtracer.cli.console import errors, say_written, warn
from flowtracer.errors import FormatError, InputError
from flowtracer.folders import lock


def page(
    traces: Annotated[list[Path], typer.Argument(help="Traces, or folders of them.")],
    out: Annotated[Path, typer.Option(help="A file for one trace; for several a folder, with index.html.")],
    training: Annotated[bool, typer.Option("--training", help="TRACES is a run that kept traces: one file.")] = False,
) -> None:
    """Write pages that open offline by a double click: one trace as one file, several as an index over their pages."""
    from flowtracer.report.page.html import write_page
    from flowtracer.report.page.site import write_site
    from flowtracer.report.page.training import training_page
    from flowtracer.trace.trace import find_traces, load_trace

    if training:
        if len(traces) != 1:
            raise InputError(
                f"expected the folder of one run with --training, got {len(traces)}; write a page for each"
            )
        written = write_page(out, training_page(traces[0], on_bad=partial(_name_or_raise, traces)))
        say_written(written)
        return
    files = [file for path in traces for file in find_traces(path)]
    if len(files) == 1 and out.suffix == ".html":
        written = load_trace(files[0]).to_html(out)
    else:
        title = traces[0].resolve().name if len(traces) == 1 else "Traces"
        with lock(out):
            written = write_site(files, out, title=title, on_bad=partial(_name_or_raise, traces))
    say_written(written)


def _name_or_raise(asked: Sequence[Path], file: Path, error: FormatError) -> None:
    """A bad file of a folder is left out; one that was asked for by name is a mistake."""
    if file in asked:
        raise error
    warn(f"skipped {file.name}: {error}", errors)
