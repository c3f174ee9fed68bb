"""`flowtracer trace`: stored rollouts into a folder of traces."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from flowtracer.cli.console import AsJson, console, pairs, print_json, progress, say_written, warn
from flowtracer.cli.options import (
    ANSWER_PATTERN,
    READ_AHEAD,
    parse_bytes,
    parse_effects,
    parse_layers,
    read_ahead,
    refuse_nothing_made,
)
from flowtracer.errors import InputError
from flowtracer.folders import lock

if TYPE_CHECKING:
    from flowtracer.trace import Rollout, Skipped, Trace
    from flowtracer.tracing.folder import TraceFolder
    from flowtracer.tracing.job import Loaded, TraceJob
    from flowtracer.tracing.summary import Summary
    from flowtracer.tracing.tracer import Tracer


class Engine(str, Enum):
    """What runs the model."""

    plain = "plain"
    ray = "ray"


LONG_RUN = 200_000
"""Characters of the first responses from which on tracing says first how long it will take."""
SAMPLE = 64
"""Rollouts that this is reckoned from."""


def trace(
    rollouts: Annotated[Path, typer.Argument(help="JSONL or Parquet: file, folder, pattern; hub:OWNER/NAME.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')],
    out: Annotated[Path, typer.Option(help="Folder for traces and tables.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rollouts.")] = None,
    layers: Annotated[str | None, typer.Option(help='Decoder layers, as "10-19" or "3,5"; middle third.')] = None,
    capacity: Annotated[str, typer.Option(help="An edge is attention, value, gradient or alti.")] = "attention",
    graph: Annotated[str, typer.Option(help="On tokens, or layered: (token, layer).")] = "tokens",
    ends: Annotated[str, typer.Option(help="Walks over layers end: anywhere, question.")] = "anywhere",
    at: Annotated[str | None, typer.Option(help="Where the flow ends: token or prediction.")] = None,
    answer_pattern: Annotated[str | None, typer.Option(help=ANSWER_PATTERN)] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many traces in full.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward, padding included.")] = 4096,
    memory_budget: Annotated[str, typer.Option(help="For matrices of attention; beyond it, streamed.")] = "2GiB",
    effects: Annotated[str, typer.Option(help="Hide each of so many hubs, or of all tokens: change of log p.")] = "0",
    html: Annotated[bool, typer.Option("--html", help="Write pages as well: OUT/index.html.")] = False,
    engine: Annotated[Engine, typer.Option(help="ray: many processes, tables.")] = Engine.plain,
    actors: Annotated[int | None, typer.Option(min=1, help="Processes of ray; one a GPU.")] = None,
    traces: Annotated[bool, typer.Option("--traces", help="Keep a file a trace with ray as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Trace stored rollouts: one trace a rollout, a Parquet table of tokens, and a summary.

    Lines that cannot be read or traced are counted and named; the others go on. What OUT already holds of
    these very rollouts is not computed again: a run that was interrupted goes on where it stopped.
    """
    from flowtracer.tracing.job import TraceJob

    if engine is not Engine.ray and (actors or traces):
        raise InputError("expected --engine ray beside --actors or --traces, got none; add it, or leave them out")
    first, records = read_ahead(rollouts, limit, answer_pattern)
    hidden = parse_effects(effects)
    options = {"rollouts": str(rollouts), "model": model, "layers": layers, "dtype": dtype, "effects": hidden}
    how: dict[str, Any] = {"layers": None if layers is None else parse_layers(layers), "at": at, "ends": ends}
    how |= {"capacity": capacity, "graph": graph, "memory_budget": parse_bytes(memory_budget)}
    job = TraceJob(
        rollouts=str(rollouts),
        limit=limit,
        out=out,
        options=options,
        model=model,
        device=device,
        dtype=dtype,
        tracer={**how, "answer_pattern": answer_pattern},
        max_tokens=max_tokens,
        measure=partial(_measuring, hidden, max_tokens),
    )
    with lock(out):
        if engine is Engine.ray:
            from flowtracer.cli.trace_ray import trace_with_actors

            summary = trace_with_actors(job, actors, keep_traces=traces, html=html)
        else:
            summary = _trace_here(job, first, records, show=show, html=html)
        if as_json:
            print_json(asdict(summary))
        say_written(out)


def _trace_here(
    job: TraceJob, first: Sequence[Rollout | Skipped], records: Iterable[Rollout | Skipped], *, show: int, html: bool
) -> Summary:
    """Trace in this process, a file a trace, and say what it came to."""
    from flowtracer.trace.trace import load_trace
    from flowtracer.tracing.folder import TraceFolder

    with console.status(f"loading {job.model}"):
        loaded = job.load()
    folder = TraceFolder(job.out, loaded.options, model=loaded.digest)
    whole = len(first) < READ_AHEAD
    _announce(loaded.tracer, first, whole)
    started = time.perf_counter()
    with progress("tracing", len(first) if whole else None) as bar:
        made = _run(bar, folder, loaded, records, job.max_tokens)
    seconds = time.perf_counter() - started
    summary = folder.summarise()
    refuse_nothing_made("traced", summary.traced, summary.skipped)
    for file in folder.files()[:show]:
        console.rule(Text(file.stem, style="dim"))
        console.print(load_trace(file))
    console.rule()
    console.print(summary_table(summary, seconds, made))
    if unused := len(folder.unused()):
        console.print(Text(f"{unused} traces of other rollouts set aside as *.unused", style="dim"))
    if html:
        from flowtracer.report.page.site import read_skipped, write_site

        with console.status("writing pages"):
            skipped = read_skipped(job.out / "skipped.jsonl")
            write_site(folder.files(), job.out, skipped, title=Path(job.rollouts).name)
    return summary


def _run(
    bar: Progress,
    folder: TraceFolder,
    loaded: Loaded,
    records: Iterable[Rollout | Skipped],
    max_tokens: int,
) -> Counter[str]:
    """Trace, and name what went wrong; returns how many were held, made, skipped and damaged."""
    from flowtracer.trace.trace import Skipped
    from flowtracer.tracing.folder import Damaged

    made: Counter[str] = Counter()
    for outcome in folder.trace(loaded.tracer, records, max_tokens=max_tokens, finish=loaded.finish):
        if isinstance(outcome, Damaged):
            made["damaged"] += 1
            warn(f"damaged {outcome.file.name}: {outcome.message}; traced again", bar.console)
            continue
        bar.advance(bar.task_ids[0])
        if isinstance(outcome, Skipped):
            made["skipped"] += 1
            warn(f"skipped {outcome.id}: {outcome.reason}: {outcome.message}", bar.console)
        else:
            made["held" if outcome.held else "made"] += 1
    return made


def _measuring(hidden: int | Literal["all"], max_tokens: int, model: Any) -> Callable[[Trace], Trace] | None:
    """What adds the effects that were asked for to a trace."""
    from flowtracer.checks.masking import with_all_effects, with_hub_effects

    if hidden == "all":
        return partial(with_all_effects, model, max_tokens=max_tokens)
    return partial(with_hub_effects, model, hubs=hidden, max_tokens=max_tokens) if hidden else None


def _announce(tracer: Tracer, first: Sequence[Rollout | Skipped], whole: bool) -> None:
    """Say what a long run will take, going by some of its first rollouts."""
    from flowtracer.trace.trace import Rollout
    from flowtracer.tracing.estimate import estimate

    rollouts = [record for record in first if isinstance(record, Rollout)]
    if sum(len(rollout.response) for rollout in rollouts) < LONG_RUN:
        return
    some = rollouts[:: math.ceil(len(rollouts) / SAMPLE)]
    times = len(rollouts) / len(some)
    with console.status("timing two of them"):
        ahead = estimate(tracer, some)
    seconds, streamed = ahead.seconds * times, round(ahead.streamed * times)
    text = f"{'about ' if times > 1 else ''}{ahead.tokens * times:,.0f} tokens in {'' if whole else 'the first '}"
    text += f"{ahead.rollouts * times:,.0f} rollouts, the longest of {'some ' if times > 1 else ''}{ahead.longest:,}: "
    text += f"about {seconds / 60:.0f} minutes" if seconds >= 120 else f"about {seconds:.0f} seconds"
    if streamed:
        text += f", more for the {streamed} that exceed the memory budget and are streamed"
    console.print(Text(text, style="dim"), soft_wrap=True)


def summary_table(summary: Summary, seconds: float, outcomes: Mapping[str, int]) -> Table:
    """What is printed of a folder, and of the run that has just ended."""
    fresh = outcomes["made"]
    rows = {
        "rollouts": str(summary.rollouts),
        "traced": f"{summary.traced} ({summary.traced / max(summary.rollouts, 1):.0%})",
        **{f"skipped: {reason}": str(count) for reason, count in summary.skipped.items()},
        **({"damaged": f"{outcomes['damaged']}, traced again"} if outcomes["damaged"] else {}),
        "tokens": f"{summary.tokens:,}",
        "seconds a trace": f"{seconds / fresh:.2f}" if fresh else "all held already",
        "conservation error": f"{summary.largest_conservation_error:.1e} at most",
        "half the flow": f"on {summary.backbone_edges_per_token:.1f} edges a token",
        **{f"through hubs ({group})": f"{share:.0%}" for group, share in summary.share_through_hubs.items()},
        "frequent hubs": "  ".join(f"{word} {count}" for word, count in summary.hub_words),
    }
    return pairs("summary", rows)
