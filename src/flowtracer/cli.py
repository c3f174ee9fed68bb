"""The command line: trace, page, explain, compare, plot, mask, faithfulness, eval, train, demo, doctor.

Exit codes: 0 on success, 2 for a mistake that the user can mend, with a message that says how. Torch and transformers
load inside commands, so that `--help` is instant.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowtracer.cli_eval import evaluate
from flowtracer.cli_faithfulness import faithfulness
from flowtracer.console import console
from flowtracer.console import progress as _progress
from flowtracer.errors import FlowTracerError, InputError

if TYPE_CHECKING:
    from flowtracer.batch import Summary
    from flowtracer.demo import Change
    from flowtracer.trace import Rollout, Skipped, Trace
    from flowtracer.tracer import Tracer

app = typer.Typer(
    name="flowtracer",
    help="See how a language model's reasoning flows from question to answer, and train on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LONG_RUN = 200_000
"""Characters of all responses from which on tracing says first how long it will take."""

TRAINING_COLUMNS = {
    "reward": "reward",
    "credit/traced": "traced",
    "credit/boosted_share": "boosted",
    "credit/flow_in_boosted": "their flow",
    "credit/seconds": "credit s",
    "step_time": "step s",
}
"""What a line of training shows, of all that is logged."""


def main() -> None:
    """Entry point: a user's mistake becomes one message and exit code 2, a bug stays a traceback."""
    # What libraries will change, and a bar for each file they touch, is nothing that a user of this command can act on.
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app()
    except FlowTracerError as error:
        Console(stderr=True).print(Text(f"error: {error}", style="red"), soft_wrap=True)
        sys.exit(2)


@app.command()
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
    from flowtracer.batch import TraceFolder
    from flowtracer.masking import with_hub_effects
    from flowtracer.records import read_rollouts
    from flowtracer.trace import Skipped, load_trace

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
    with _progress("tracing", len(records)) as progress:
        for outcome in folder.trace(tracer, records, max_tokens=max_tokens, finish=finish):
            progress.advance(progress.task_ids[0])
            if isinstance(outcome, Skipped):
                progress.console.print(
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
        from flowtracer.report.site import read_skipped, write_site

        with console.status("writing pages"):
            write_site(folder.files(), out, read_skipped(out / "skipped.jsonl"), title=rollouts.name)
    console.print(Text(f"written to {out}", style="dim"), soft_wrap=True)


@app.command()
def page(
    traces: Annotated[list[Path], typer.Argument(help="Traces, or folders of them.")],
    out: Annotated[Path, typer.Option(help="A file for one trace; for several a folder, with index.html.")],
    training: Annotated[bool, typer.Option("--training", help="TRACES is a run that kept traces: one file.")] = False,
) -> None:
    """Write pages that open offline by a double click: one trace as one file, several as an index over their pages."""
    from flowtracer.report.html import write_page
    from flowtracer.report.site import write_site
    from flowtracer.report.training_page import training_page
    from flowtracer.trace import find_traces, load_trace

    if training:
        if len(traces) != 1:
            raise InputError(
                f"expected the folder of one run with --training, got {len(traces)}; write a page for each"
            )
        written = write_page(out, training_page(traces[0]))
        console.print(Text(f"written to {written}", style="dim"), soft_wrap=True)
        return
    files = [file for path in traces for file in find_traces(path)]
    if len(files) == 1 and out.suffix == ".html":
        written = load_trace(files[0]).to_html(out)
    else:
        written = write_site(files, out, title=traces[0].resolve().name if len(traces) == 1 else "Traces")
    console.print(Text(f"written to {written}", style="dim"), soft_wrap=True)


@app.command()
def explain(
    traces: Annotated[list[Path], typer.Argument(help="Traces, or folders of them.")],
    hubs: Annotated[int, typer.Option(min=1, help="How many hubs.")] = 8,
    paths: Annotated[int, typer.Option(min=1, help="How many paths.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON for each trace.")] = False,
) -> None:
    """Say in plain text what carried the answer: summary, hubs, strongest paths, steps, layers."""
    from flowtracer.report.explain import explain as as_text
    from flowtracer.report.explain import explanation

    for trace in _load_traces(traces):
        if as_json:
            typer.echo(json.dumps(explanation(trace, hubs=hubs, paths=paths)))
        else:
            typer.echo(as_text(trace, hubs=hubs, paths=paths))


@app.command()
def compare(
    traces: Annotated[list[Path], typer.Argument(help="Two traces of one prompt; or more, or folders of them.")],
    hubs: Annotated[int, typer.Option(min=1, help="How many hubs of each.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
) -> None:
    """Compare two responses to one prompt: where they part, hubs kept, lost and new. More than two: a group."""
    from flowtracer.comparison import compare as compare_two
    from flowtracer.comparison import compare_group
    from flowtracer.report.compare_page import comparison_page, group_page
    from flowtracer.report.html import write_page
    from flowtracer.report.terminal_comparison import render_comparison, render_group

    loaded = _load_traces(traces)
    if len(loaded) == 2:
        comparison = compare_two(*loaded, hubs=hubs)
        content, shown = comparison.to_dict(), render_comparison(comparison)
    else:
        group = compare_group(loaded, hubs=hubs)
        content, shown = group.to_dict(), render_group(group)
    if html is not None:
        write_page(html, comparison_page(comparison) if len(loaded) == 2 else group_page(group))
    if as_json:
        typer.echo(json.dumps(content))
    else:
        console.print(shown)


@app.command()
def plot(
    traces: Annotated[list[Path], typer.Argument(help="Traces, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    figure: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated. All by default.")] = None,
    suffix: Annotated[list[str] | None, typer.Option("--format", help="svg, pdf, png; may be repeated.")] = None,
    each: Annotated[bool, typer.Option(help="Each trace for itself too, in a folder of its name.")] = False,
) -> None:
    """Draw figures for papers: flow over positions, concentration, kinds of tokens, layers, step to step.

    Of one trace they show its tokens and steps; of many, means and spread, right and wrong apart where graded.
    """
    from flowtracer.report.plots import FORMATS, write_plots
    from flowtracer.trace import find_traces, load_trace

    files = [file for path in traces for file in find_traces(path)]
    loaded = [load_trace(file) for file in files]
    drawings = [(loaded, out)]
    if each and len(loaded) > 1:
        # Steps of a training hold traces of the same names.
        alone = len({file.stem for file in files}) == len(files)
        folders = [out / (file.stem if alone else f"{file.parent.name}-{file.stem}") for file in files]
        drawings += [([trace], folder) for trace, folder in zip(loaded, folders, strict=True)]
    with _progress("drawing", len(drawings)) as progress:
        for chosen, folder in drawings:
            write_plots(chosen, folder, names=figure, formats=suffix or FORMATS)
            progress.advance(progress.task_ids[0])
    console.print(Text(f"written to {out}", style="dim"), soft_wrap=True)


@app.command()
def mask(
    rollouts: Annotated[Path, typer.Argument(help="JSONL or Parquet file of prompts and responses.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')],
    out: Annotated[Path, typer.Option(help="Folder for outcomes.jsonl and summary.json.")],
    by: Annotated[str, typer.Option(help="Strategies that score tokens: flow,attention,entropy ...")] = "flow",
    shares: Annotated[str, typer.Option(help="Shares of the reasoning's tokens.")] = "0.05,0.1,0.2,0.4",
    way: Annotated[str, typer.Option(help="hide, replace or delete.")] = "hide",
    cue: Annotated[
        str | None, typer.Option(help=r"What asks for the answer, \n a line break; as the response.")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Also keep the chosen tokens alone.")] = True,
    draws: Annotated[int, typer.Option(min=1, help="Random draws at each share.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rollouts.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
) -> None:
    """Check a credit causally: hide its top tokens, its bottom ones and random ones, and answer again.

    Says how many answers change and turn from right to wrong or back, with paired bootstrap intervals. Rollouts that
    OUT already holds are not checked again.
    """
    from flowtracer.masking import MaskingCheck, MaskingFolder
    from flowtracer.models import load_model
    from flowtracer.records import read_rollouts
    from flowtracer.report.terminal_masking import masking_tables
    from flowtracer.trace import Skipped

    records = list(read_rollouts(rollouts, limit=limit))
    if not records:
        raise InputError(f"expected at least one rollout, got none in {str(rollouts)!r}")
    options = {"by": by, "shares": shares, "way": way, "cue": cue, "curves": curves, "draws": draws, "seed": seed}
    with console.status(f"loading {model}"):
        check = MaskingCheck(
            *load_model(model, device=device, dtype=dtype),
            by=[name.strip() for name in by.split(",")],
            shares=parse_shares(shares),
            way=way,
            cue=None if cue is None else cue.replace(r"\n", "\n"),
            curves=curves,
            draws=draws,
            seed=seed,
        )
    folder = MaskingFolder(out, {"rollouts": str(rollouts), "model": model, "dtype": dtype, **options})
    with _progress("checking", len(records)) as progress:
        for outcome in folder.check(check, records):
            progress.advance(progress.task_ids[0])
            if isinstance(outcome, Skipped):
                progress.console.print(
                    Text(f"skipped {outcome.id}: {outcome.reason}: {outcome.message}", style="yellow"), soft_wrap=True
                )
    for table in masking_tables(folder.summarise()):
        console.print(table)
    console.print(Text(f"written to {out}", style="dim"), soft_wrap=True)


app.command()(faithfulness)
app.command("eval")(evaluate)


@app.command()
def train(
    run_file: Annotated[Path, typer.Argument(help="TOML run file: model, task, credit, TRL's options.")],
) -> None:
    """Train with GRPO and per-token credit, as a run file says.

    A run that was interrupted goes on from its last checkpoint. Every logged step is a line of log.jsonl.
    """
    from flowtracer.rl.run import LogLine, read_run_file
    from flowtracer.rl.run import train as run_training

    run = read_run_file(run_file)
    with _progress("training", None) as progress:
        bar = progress.task_ids[0]

        def on_log(line: LogLine) -> None:
            progress.update(bar, total=line["max_steps"], completed=line["step"])
            shown = [f"{label} {line[name]:.3f}" for name, label in TRAINING_COLUMNS.items() if name in line]
            if shown:
                progress.console.print(f"step {line['step']:>4}  " + "  ".join(shown), highlight=False, soft_wrap=True)

        final = run_training(run, on_log=on_log)
    console.print(Text(f"model and log written to {final.parent}", style="dim"), soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, responses, traces and pages.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option(help="A few steps, to see every part move in less than a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Of training.")] = 0,
) -> None:
    """Train a small model with flow credit, measure what it gained, and trace how its reasoning changed.

    Needs neither a GPU nor a network. Started again, an interrupted demo goes on.
    """
    from flowtracer.demo import FULL, QUICK, run_demo
    from flowtracer.report.live import TrainingView

    started = time.perf_counter()
    folder = out / "quick" if quick else out
    view = TrainingView(console)
    with contextlib.ExitStack() as live:

        def on_stage(text: str) -> None:
            live.close()
            console.rule(Text(text), align="left", style="dim")

        def on_log(line: Mapping[str, Any]) -> None:
            if not view.started:
                live.enter_context(view)
            view.add(line)

        result = run_demo(folder, scale=QUICK if quick else FULL, seed=seed, on_stage=on_stage, on_log=on_log)
    if result.change is None:
        console.print("no problem went from wrong to right")
    else:
        _show_change(result.change)
    console.rule(style="dim")
    accuracies = {
        "before": result.before.percent(),
        "after": result.after.percent(),
        "gain": result.gain.percent("points"),
    }
    accuracies["minutes"] = f"{(time.perf_counter() - started) / 60:.1f}"
    title = f"greedy accuracy on {result.before.items} held-out problems, with 95 % intervals"
    console.print(_pairs(title, accuracies))


def _show_change(change: Change) -> None:
    console.print(Text(change.question, style="bold"))
    for name, trace in zip(("before", "after"), change.traces, strict=True):
        console.print(Text(f"\n{name}: {trace.summary()}", style="bold"), soft_wrap=True)
        console.print(Text(trace.text[trace.offsets[trace.response.start, 0] :].rstrip()))
        for path in trace.paths(1):
            console.print(Text("strongest path: " + " → ".join(trace.label(token) for token in path.tokens)))
    console.print(Text(f"\npage: {change.page}", style="bold"), soft_wrap=True)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option(help="Check that this model can be traced, and how long a text.")] = None,
) -> None:
    """Say what is installed and what this machine can do; with a model, whether and how long it can be traced."""
    from flowtracer.doctor import check_model, installed, machine

    console.print(_pairs("machine", machine()))
    console.print(_pairs("installed", installed()))
    if model is not None:
        with console.status(f"checking {model}"):
            report = check_model(model)
        console.print(_pairs(model, report))


def _load_traces(paths: list[Path]) -> list[Trace]:
    from flowtracer.trace import find_traces, load_trace

    return [load_trace(file) for path in paths for file in find_traces(path)]


def _load_tracer(model: str, layers: str | None, at: str, device: str | None, dtype: str | None) -> Any:
    from flowtracer.models import load_model
    from flowtracer.tracer import Tracer

    chosen = None if layers is None else parse_layers(layers)
    return Tracer(*load_model(model, device=device, dtype=dtype), layers=chosen, at=at)


def _announce(tracer: Tracer, records: Sequence[Rollout | Skipped]) -> None:
    """Say what a long run will take."""
    from flowtracer.estimate import estimate
    from flowtracer.trace import Rollout

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


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_bytes(text: str) -> int:
    """Bytes out of "2GiB", "500 MB" or a plain number."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|)\s*", text)
    if found is None:
        raise InputError(f'expected a size such as "2GiB", "500MB" or a number of bytes, got {text!r}')
    return int(float(found.group(1)) * _UNITS[found.group(2)])


def parse_layers(text: str) -> list[int]:
    """Layers out of "10-19,25"."""
    found = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.replace(" ", ""))
    if found is None:
        raise InputError(f'expected layers such as "10-19" or "3,5,7", got {text!r}')
    ranges = [part.split("-") for part in found.group().split(",")]
    return [layer for part in ranges for layer in range(int(part[0]), int(part[-1]) + 1)]


def parse_shares(text: str) -> list[float]:
    """Shares out of "0.05,0.1,0.2"."""
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f'expected shares such as "0.05,0.1,0.2", got {text!r}') from error


def _pairs(title: str, rows: Mapping[str, str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", min_width=22)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


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
    return _pairs("summary", rows)
