"""`flowtracer trace --engine ray`: stored rollouts into partitioned tables, by several processes."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from flowtracer.cli.console import console, progress

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
    console.print(summary_table(summary, seconds, made))
