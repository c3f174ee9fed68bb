"""`flowtracer plot`: figures for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtracer.cli.console import progress, say_written
from flowtracer.cli.options import load_traces

if TYPE_CHECKING:
    from flowtracer.trace import Trace


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
    from flowtracer.report.figures.plots import FORMATS, write_plots

    files, loaded = zip(*load_traces(traces), strict=True)
    drawings: list[tuple[Sequence[Trace], Path]] = [(loaded, out)]
    if each and len(loaded) > 1:
        # Steps of a training hold traces of the same names.
        alone = len({file.stem for file in files}) == len(files)
        folders = [out / (file.stem if alone else f"{file.parent.name}-{file.stem}") for file in files]
        drawings += [([trace], folder) for trace, folder in zip(loaded, folders, strict=True)]
    with progress("drawing", len(drawings)) as bar:
        for chosen, folder in drawings:
            write_plots(chosen, folder, names=figure, formats=suffix or FORMATS)
            bar.advance(bar.task_ids[0])
    say_written(out)
