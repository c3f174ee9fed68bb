"""`flowtracer study`: strategies of credit under one recipe and several seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flowtracer.cli.console import console, say_written
from flowtracer.errors import InputError

if TYPE_CHECKING:
    from flowtracer.study.results import RunCurves
    from flowtracer.study.runner import Job


def study(
    files: Annotated[list[Path] | None, typer.Argument(help="TOML files, one a study.", show_default=False)] = None,
    report: Annotated[list[str] | None, typer.Option(help="Tables and pictures of this study; may repeat.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; as many as there are cores.")] = None,
    work: Annotated[Path, typer.Option(help="Where runs keep what they write.")] = Path("runs/studies"),
    results: Annotated[Path, typer.Option(help="Where STUDY.json stands.")] = Path("experiments/results"),
) -> None:
    """Compare strategies of credit under one recipe and several seeds.

    With files: run what is missing, each run a process of its own; started again, it goes on. With --report: say what
    the results show, and write STUDY.md, .svg and .png beside them.
    """
    if not files and not report:
        raise InputError("expected TOML files to run, or --report NAME, got neither")
    failed = [failure for file in files or () for failure in _run(file, jobs or os.cpu_count() or 1, work, results)]
    for name in report or ():
        _report(name, results)
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


def _report(name: str, results: Path) -> None:
    from flowtracer.study.differences import compare_runs
    from flowtracer.study.figures import table, write_comparison
    from flowtracer.study.results import load_results

    comparison = compare_runs(load_results(results / f"{name}.json"))
    console.print(Text(table(comparison)), soft_wrap=True)
    for file in write_comparison(comparison, results):
        say_written(file)
