"""`flowtracer trace`: stored rollouts into a folder of traces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from flowtracer.cli.console import console, pairs, progress, say_written
from flowtracer.cli.options import parse_bytes, parse_layers
from flowtracer.errors import InputError

if TYPE_CHECKING:
    from flowtracer.trace import Rollout, Skipped
    from flowtracer.tracing.folder import Summary
    from flowtracer.tracing.tracer import Tracer

LONG_RUN = 200_000
"""Characters of all responses from which on tracing says first how long it will take."""


def trace(
    rollouts: Annotated[Path, typer.Argument(help="JSONL or Parquet file of prompts and responses.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')],
    out: Annotated[Path, typer.Option(help="Folder for traces, tokens.parquet and summary.json.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rollouts.")] = None,
    layers: Annotated[str | None, typer.Option(help='Decoder layers, as "10-19" or "3,5"; middle third.')] = None,
    at: Annotated[str, typer.Option(help="The flow ends at the answer's token or at its prediction.")] = "token",
    show: Annotated[int, typer.Option(min=0, help="Print so many traces in full.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one forward, padding included.")] = 4096,
    memory_budget: Annotated[str, typer.Option(help="For matrices of attention; beyond it, streamed.")] = "2GiB",
    effects: Annotated[int, typer.Option(min=0, help="Hide each of so many hubs, and measure log p(answer).")] = 0,
    html: Annotated[bool, typer.Option("--html", help="Write pages as well: OUT/index.html.")] = False,
) -> None:
    """Trace stored rollouts: one trace a rollout, a Parquet table of tokens, and a summary.

    Lines that cannot be read or traced are counted and named; the others go on. Traces that OUT already holds are
    not computed again, so a run that was interrupted goes on where it stopped.
    """
    from flowtracer.checks.masking import with_hub_effects
    from flowtracer.trace.records import read_rollouts
    from flowtracer.trace.trace import Skipped, load_trace
    from flowtracer.tracing.folder import TraceFolder

    records = list(read_rollouts(rollouts, limit=limit))
    if not records:
        raise InputError(f"expected at least one rollout, got none in {str(rollouts)!r}")
    options = {"model": model, "layers": layers, "at": at, "dtype": dtype, "effects": effects}
    folder = TraceFolder(out, {"rollouts": str(rollouts), **options})
    budget = parse_bytes(memory_budget)
    with console.status(f"loading {model}"):
        tracer = _load_tracer(model, layers, at, device, dtype)
    tracer.memory_budget = budget
    _announce(tracer, records)
    held = len(folder.files())
    started = time.perf_counter()
    finish = partial(with_hub_effects, tracer.model, hubs=effects, max_tokens=max_tokens) if effects else None
    with progress("tracing", len(records)) as bar:
        for outcome in folder.trace(tracer, records, max_tokens=max_tokens, finish=finish):
            bar.advance(bar.task_ids[0])
            if isinstance(outcome, Skipped):
                bar.console.print(
                    Text(f"skipped {outcome.id}: {outcome.reason}: {outcome.message}", style="yellow"), soft_wrap=True
                )
    seconds = time.perf_counter() - started
    summary = folder.summarise()
    for file in folder.files()[:show]:
        console.rule(Text(file.stem, style="dim"))
        console.print(load_trace(file))
    console.rule()
    console.print(_summary_table(summary, seconds, summary.traced - held))
    if html:
        from flowtracer.report.page.site import read_skipped, write_site

        with console.status("writing pages"):
            write_site(folder.files(), out, read_skipped(out / "skipped.jsonl"), title=rollouts.name)
    say_written(out)


def _load_tracer(model: str, layers: str | None, at: str, device: str | None, dtype: str | None) -> Any:
    from flowtracer.model.load import load_model
    from flowtracer.tracing.tracer import Tracer

    chosen = None if layers is None else parse_layers(layers)
    return Tracer(*load_model(model, device=device, dtype=dtype), layers=chosen, at=at)


def _announce(tracer: Tracer, records: Sequence[Rollout | Skipped]) -> None:
    """Say what a long run will take."""
    from flowtracer.trace.trace import Rollout
    from flowtracer.tracing.estimate import estimate

    rollouts = [record for record in records if isinstance(record, Rollout)]
    if sum(len(rollout.response) for rollout in rollouts) < LONG_RUN:
        return
    with console.status("timing two of them"):
        ahead = estimate(tracer, rollouts)
    text = f"{ahead.tokens:,} tokens in {ahead.rollouts} rollouts, the longest of {ahead.longest:,}: about "
    text += f"{ahead.seconds / 60:.0f} minutes" if ahead.seconds >= 120 else f"{ahead.seconds:.0f} seconds"
    if ahead.streamed:
        text += f", more for the {ahead.streamed} that exceed the memory budget and are streamed"
    console.print(Text(text, style="dim"), soft_wrap=True)


def _summary_table(summary: Summary, seconds: float, fresh: int) -> Table:
    rows = {
        "rollouts": str(summary.rollouts),
        "traced": f"{summary.traced} ({summary.traced / max(summary.rollouts, 1):.0%})",
        **{f"skipped: {reason}": str(count) for reason, count in summary.skipped.items()},
        "tokens": f"{summary.tokens:,}",
        "seconds a trace": f"{seconds / fresh:.2f}" if fresh else "all held already",
        "conservation error": f"{summary.largest_conservation_error:.1e} at most",
        "half the flow": f"on {summary.backbone_edges_per_token:.1f} edges a token",
        **{f"through hubs ({group})": f"{share:.0%}" for group, share in summary.share_through_hubs.items()},
        "frequent hubs": "  ".join(f"{token!r} {count}" for token, count in summary.hub_tokens),
    }
    return pairs("summary", rows)
