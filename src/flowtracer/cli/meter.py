"""`flowtracer meter`: what strategies of credit are worth, without a training run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from flowtracer.cli.console import AsJson, console, print_json, progress, say_written

if TYPE_CHECKING:
    from flowtracer.checks.meter import MeterResult


def meter(
    task: Annotated[str, typer.Option(help="countdown:brief=true, planted:chains=2 ...")],
    out: Annotated[Path, typer.Option(help="Folder for rollouts, gradients, meter.json, page and figure.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')] = "nano",
    credit: Annotated[str, typer.Option(help='Strategies: "flow,position,flow:keep=bottom".')] = "all",
    mix: Annotated[str | None, typer.Option(help="Strategies for the best mix; all.")] = None,
    rollouts: Annotated[int, typer.Option(min=1, help="For the true gradient.")] = 8192,
    minibatches: Annotated[int, typer.Option(min=2, help="That strategies are measured on.")] = 24,
    batch: Annotated[int, typer.Option(min=2, help="Responses of a minibatch.")] = 64,
    group: Annotated[int, typer.Option(min=2, help="Responses to a problem.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 256,
    temperature: Annotated[float, typer.Option(help="Of sampling.")] = 1.0,
    loss_type: Annotated[str, typer.Option(help="The trainer's: dapo, grpo, dr_grpo ...")] = "dapo",
    parameters: Annotated[str, typer.Option(help='all, lora, or a regex such as "layers.[45]."')] = "all",
    rows: Annotated[int, typer.Option(min=1, help="Sequences in one forward.")] = 16,
    seed: Annotated[int, typer.Option(help="Of problems, sampling and bootstrap.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what strategies of credit are worth: how far a step of each goes along the true policy gradient.

    Worth is over `uniform`, plain GRPO, on the same minibatches, with paired intervals. Started again, it goes on.
    """
    from flowtracer.checks.meter import MeterOptions
    from flowtracer.checks.meter import meter as measure
    from flowtracer.checks.meter.gradient import with_adapters
    from flowtracer.model.load import load_model
    from flowtracer.tasks import parse_task

    options = MeterOptions(
        rollouts=rollouts,
        minibatches=minibatches,
        batch=batch,
        group=group,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        loss_type=loss_type,
        parameters=parameters,
        seed=seed,
    )
    chosen = parse_task(task)
    with console.status(f"loading {model}"):
        loaded, tokenizer = load_model(model, device=device, dtype="float32")
    if parameters == "lora":
        loaded = with_adapters(loaded)
    with progress("rollouts", None) as bar:
        result = measure(
            loaded,
            tokenizer,
            chosen,
            credit,
            options=options,
            mix=None if mix is None else [name.strip() for name in mix.split(",")],
            out=out,
            rows_per_forward=rows,
            on_progress=_Bars(bar),
        )
    _report(result, out, as_json=as_json)


def _report(result: MeterResult, out: Path, *, as_json: bool) -> None:
    """Print it, and write page and figure."""
    from flowtracer.report.page.html import write_page
    from flowtracer.report.page.meter import meter_page
    from flowtracer.report.terminal.meter import meter_summary, meter_tables

    if as_json:
        print_json(result.to_dict())
    else:
        console.print(*meter_summary(result), sep="\n")
        for table in meter_tables(result):
            console.print(table)
    say_written(out / "meter.json")
    say_written(write_page(out / "meter.html", meter_page(result)))
    if importlib.util.find_spec("matplotlib") is not None:
        from flowtracer.report.figures.meter import write_worth

        for file in write_worth(result, out):
            say_written(file)


class _Bars:
    """A bar a stage."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._stages: dict[str, TaskID] = {"rollouts": bar.task_ids[0]}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._stages[stage], total=total, advance=done)
