"""`flowtracer trace --engine ray`: stored rollouts into partitioned tables, by several processes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowtracer.cli.console import console, progress, warn
from flowtracer.cli.options import refuse_nothing_made

if TYPE_CHECKING:
    from flowtracer.tracing.job import TraceJob
    from flowtracer.tracing.summary import Summary


def trace_with_actors(job: TraceJob, actors: int | None, *, keep_traces: bool, html: bool) -> Summary:
    """Trace, and say what it came to."""
    from flowtracer.cli.trace import summary_table
    from flowtracer.tracing.parts import finish_parts
    from flowtracer.tracing.ray_engine import trace_with_ray

    job = replace(job, options={**job.options, "engine": "ray"}, keep_traces=keep_traces)
    made: Counter[str] = Counter()
    names: list[str] = []
    damaged: set[str] = set()
    started = time.perf_counter()
    with progress("tracing", None) as bar:
        for part in trace_with_ray(job, actors):
            names.append(part.name)
            made.update(made=part.made, held=part.held)
            for file in sorted({*part.damaged} - damaged):
                warn(f"damaged {file}: what it held is traced again", bar.console)
            damaged |= {*part.damaged}
            bar.advance(bar.task_ids[0], part.made + part.held + sum(part.skipped.values()))
    made["damaged"] = len(damaged)
    seconds = time.perf_counter() - started
    summary = finish_parts(job.out, names)
    refuse_nothing_made("traced", summary.traced, summary.skipped)
    console.print(summary_table(summary, seconds, made))
    if html:
        with console.status("writing pages"):
            _write_pages(job)
    return summary


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
