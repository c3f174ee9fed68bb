"""Figures for papers, from one trace or from many.

Each function, in a file of its own, takes traces and returns a matplotlib figure. Of one trace it shows the tokens and
steps themselves; of many, means with their spread, right and wrong responses apart where they were graded. Responses
differ in length, so many of them are laid over each other by the relative position of their tokens between prompt and
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flowtracer.errors import InputError
from flowtracer.report.figures.concentration import plot_concentration
from flowtracer.report.figures.kinds import plot_categories
from flowtracer.report.figures.layers import plot_layers, same_layers
from flowtracer.report.figures.positions import plot_positions
from flowtracer.report.figures.steps import plot_steps
from flowtracer.report.figures.style import save_figure, styled
from flowtracer.trace.trace import Trace

# style refuses with a message where matplotlib is missing, and stands above it in the order of imports.
from matplotlib.figure import Figure  # isort: skip

FORMATS = ("svg", "pdf", "png")

FIGURES: dict[str, Callable[[Sequence[Trace]], Figure]] = {
    "positions": plot_positions,
    "concentration": plot_concentration,
    "categories": plot_categories,
    "layers": plot_layers,
    "steps": plot_steps,
}


def drawable(traces: Sequence[Trace]) -> list[str]:
    """The figures that these traces allow: layers only where each looked at the heads of the same ones."""
    return [name for name in FIGURES if name != "layers" or same_layers(traces)]


def draw(name: str, traces: Sequence[Trace]) -> Figure:
    """A figure of `FIGURES` in this package's style.

    Raises:
        InputError: No such figure, no trace, or traces without what the figure shows.
    """
    if name not in FIGURES:
        raise InputError(f"expected a figure among {list(FIGURES)}, got {name!r}")
    if not traces:
        raise InputError("expected at least one trace to draw, got none")
    with styled():
        return FIGURES[name](traces)


def write_plots(
    traces: Sequence[Trace], out: Path, *, names: Sequence[str] | None = None, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw figures of one trace or of many together, each in every format; None for all that the traces allow.

    Raises:
        InputError: An unknown figure or format, or a folder that cannot be written.
    """
    if not set(formats) <= set(FORMATS):
        raise InputError(f"expected formats among {list(FORMATS)}, got {list(formats)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {str(out)!r}: {error}") from error
    written = []
    for name in drawable(traces) if names is None else names:
        figure = draw(name, traces)
        written += [save_figure(figure, out / f"{name}.{suffix}") for suffix in formats]
    return written
