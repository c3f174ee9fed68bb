"""How figures look, and how a model's text gets into them.

Text stays text in SVG and PDF, so that a paper can search and restyle it. Token text is hostile: dollar signs are no
formulas, what cannot be printed is a dot, and a character that no installed font has is a box.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowtracer.errors import MissingDependencyError
from flowtracer.folders import write_atomically
from flowtracer.text.printable import printable
from flowtracer.trace.measures import verdict
from flowtracer.trace.trace import Trace

try:
    import matplotlib
except ImportError as error:
    raise MissingDependencyError(f'expected matplotlib, got {error}: pip install "flowtracer[report]"') from error

# Okabe and Ito's colours, told apart with any colour vision, and by lightness in print.
BLUE, VERMILLION, ORANGE, SKY, GREEN = "#0072B2", "#D55E00", "#E69F00", "#56B4E9", "#009E73"
GREY, LIGHT, INK = "#8c8c8c", "#e6e6e6", "#222222"
GROUP_COLOURS = {"right": BLUE, "wrong": VERMILLION, "all": INK}
SEQUENTIAL = "Blues"

WIDTH = 6.75
"""Inches: the text width of a two-column paper."""
LABELLED_STEPS = 40
"""Up to so many steps are named; more names than that cannot be read."""

# DejaVu comes with matplotlib; the others hold scripts that it lacks, where they are installed.
_FAMILIES = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Droid Sans Fallback", "Noto Sans Arabic")
_MISSING = "▯"

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": False,
    "figure.dpi": 200,
    "font.size": 8,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "flowtracer",
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}


@functools.cache
def _fonts() -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Names and faces of the families that are installed."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    names = tuple(name for name in _FAMILIES if name in installed)
    return names, tuple(font_manager.get_font(font_manager.findfont(name)) for name in names)


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults with the look of this package; the caller's settings come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"font.family": list(_fonts()[0])})
        yield


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure in the format that the name ends in, whole or not at all; the same figure gives the same bytes."""
    undated: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    content = io.BytesIO()
    with styled():
        figure.savefig(content, format=path.suffix.removeprefix("."), metadata=undated.get(path.suffix))
    return write_atomically(path, content.getvalue())


def plain(text: str, length: int = 24) -> str:
    """A model's text as one short line that any figure can show."""
    folded = " ".join(printable(text).split())
    shown = folded if len(folded) <= length else folded[: length - 1] + "…"
    return "".join(c if any(face.get_char_index(ord(c)) for face in _fonts()[1]) else _MISSING for c in shown)


def percent(share: float, _: object = None) -> str:
    """A share as a tick says it."""
    return f"{100 * share:.3g}%"


def groups(traces: Sequence[Trace]) -> dict[str, list[Trace]]:
    """Right and wrong responses where both exist, else all as one group."""
    graded = {name: [trace for trace in traces if verdict(trace) == name] for name in ("right", "wrong")}
    return graded if all(graded.values()) else {"all": list(traces)}
