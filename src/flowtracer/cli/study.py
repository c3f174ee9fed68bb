"""`flowtracer study`: strategies of credit under one recipe and several seeds."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, print_json, say_written, warn
from flowtracer.errors import InputError

if TYPE_CHECKING:
    from flowtracer.study.results import RunCurves
    from flowtracer.study.runner import Job


def study(
    files: Annotated[list[Path] | None, typer.Argument(help="TOML files, one a study.", show_default=False)] = None,
    report: Annotated[list[str] | None, typer.Option(help="Tables and pictures of this study; may repeat.")] = None,
    runs: Annotated[list[str] | None, typer.Option(help='Or "LABEL=FOLDERS", output folders of a trainer.')] = None,
    metric: Annotated[str, typer.Option(help="What --runs are compared by, as their logs call it.")] = "reward",
    baseline: Annotated[str | None, typer.Option(help="Label that --runs are compared to; the first.")] = None,
    name: Annotated[str, typer.Option(help="Under which --runs are kept in RESULTS.")] = "runs",
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; as many as there are cores.")] = None,
    work: Annotated[Path, typer.Option(help="Where runs keep what they write.")] = Path("runs/studies"),
    results: Annotated[Path, typer.Option(help="Where STUDY.json stands.")] = Path("experiments/results"),
    as_json: AsJson = False,
) -> None:
    """Compare strategies of credit under one recipe and several seeds, or runs of your own trainer.

    With files: run what is missing, each run a process of its own; started again, it goes on. With --report: say what
    the results show, and write STUDY.md, .svg and .png beside them. With --runs twice or more, such as
    --runs "plain=runs/a/seed-*" --runs "flow=runs/b/seed-*": the same of runs that stand there already.
    """
    if not files and not report and not runs:
        raise InputError('expected TOML files to run, --report NAME, or --runs "LABEL=FOLDERS", got none of them')
    failed = [failure for file in files or () for failure in _run(file, jobs or os.cpu_count() or 1, work, results)]
    for made in report or ():
        _report(made, results, as_json=as_json)
    if runs:
        _gather(runs, metric, name, baseline, results)
        _report(name, results, as_json=as_json)
    for job, error in failed:
        text = f"{job.label} seed {job.seed} failed: {error}; see {job.folder}.out"
        console.print(Text(text, style="red"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _run(file: Path, jobs: int, work: Path, results: Path) -> list[tuple[Job, Exception]]:
    from flowtracer.study.machine import stamp
    from flowtracer.study.matrix import read_study
    from flowtracer.study.runner import run_study

    def say(job: Job, curve: RunCurves) -> None:
        text = f"{job.study.name}: {job.label} seed {job.seed}: held-out {curve['held_out'][-1][1]:.1%}"
        console.print(Text(text), soft_wrap=True)

    chosen = read_study(file)
    path = results / f"{chosen.name}.json"
    failed = run_study(chosen, results=path, work=work, machine=stamp(), jobs=jobs, on_done=say)
    say_written(path)
    return failed


def _gather(given: Sequence[str], metric: str, name: str, baseline: str | None, results: Path) -> None:
    from flowtracer.study.logs import gather, refuse_study
    from flowtracer.study.results import save_results

    groups: dict[str, list[str]] = {}
    for text in given:
        label, sign, folders = text.partition("=")
        if not sign or not folders or re.fullmatch(r"\w[\w.-]*", label) is None:
            raise InputError(f'expected runs as "LABEL=FOLDERS", got {text!r}')
        groups.setdefault(label, []).append(folders)
    file = results / f"{name}.json"
    refuse_study(file)
    save_results(file, gather(groups, metric=metric, name=name, baseline=baseline))
    say_written(file)


def _report(name: str, results: Path, *, as_json: bool) -> None:
    from flowtracer.study.differences import compare_runs
    from flowtracer.study.figures import write_comparison
    from flowtracer.study.results import load_results
    from flowtracer.study.tables import terminal_tables

    comparison = compare_runs(load_results(results / f"{name}.json"))
    for note in comparison.notes:
        warn(note)
    if as_json:
        print_json(comparison.to_dict())
    else:
        for part in terminal_tables(comparison):
            console.print(Text(part) if isinstance(part, str) else part)
    for file in write_comparison(comparison, results):
        say_written(file)
