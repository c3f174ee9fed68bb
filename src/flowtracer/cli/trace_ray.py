"""`flowtracer trace --engine ray`: stored rollouts into partitioned tables, by several processes."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from flowtracer.cli.console import console, progress
from flowtracer.cli.options import refuse_nothing_made

if TYPE_CHECKING:
    from flowtracer.tracing.job import TraceJob


def trace_with_actors(job: TraceJob, actors: int | None, *, html: bool) -> None:
    """Trace, and say what it came to."""
    from flowtracer.cli.trace import summary_table
    from flowtracer.tracing.parts import finish_parts
    from flowtracer.tracing.ray_engine import trace_with_ray

    made: Counter[str] = Counter()
    names = []
    started = time.perf_counter()
    with progress("tracing", None) as bar:
        for part in trace_with_ray(job, actors):
            names.append(part.name)
            made.update(made=part.made, held=part.held)
            bar.advance(bar.task_ids[0], part.made + part.held + sum(part.skipped.values()))
    seconds = time.perf_counter() - started
    summary = finish_parts(job.out, names)
    refuse_nothing_made("traced", summary.traced, summary.skipped)
    console.print(summary_table(summary, seconds, made))
    if html:
        with console.status("writing pages"):
            _write_pages(job)


def _write_pages(job: TraceJob) -> None:
    """An index over all rollouts, with a page for each trace that was kept."""
    from flowtracer.report.page.site import write_site, write_table_index
    from flowtracer.trace.rollout_table import read_rows
    from flowtracer.trace.trace import Skipped
    from flowtracer.tracing.parts import part_files

    files, title = part_files(job.out), Path(job.rollouts).name
    if not job.keep_traces:
        write_table_index(read_rows(files), job.out, title=title)
        return
    said = read_rows(files, ("id", "reason", "message"))
    skipped = [Skipped(**row) for row in said if row["reason"] is not None]
    write_site(sorted((job.out / "traces").glob("*.safetensors")), job.out, skipped, title=title)
