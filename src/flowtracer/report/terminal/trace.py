"""A trace at the terminal: one sentence, the text with credit as background, hubs, the strongest paths.

Model output is hostile text: nothing unprintable reaches the terminal, so no escape code, carriage return or
direction mark does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flowtracer.text.printable import printable
from flowtracer.trace.images import image_marks
from flowtracer.trace.measures import reasoning
from flowtracer.trace.trace import Trace

# One hue from light to dark reads the same with any colour vision. The widest level is the share that flow credit
# boosts by default.
LEVELS = (
    (0.05, "bold white on #08519c"),
    (0.10, "white on #3182bd"),
    (0.20, "black on #9ecae1"),
    (0.40, "black on #deebf7"),
)
ANSWER_STYLE = "bold black on #fdae6b"


def render(trace: Trace, *, hubs: int = 8, paths: int = 3, prompt: bool = False) -> RenderableType:
    """A trace for `rich.print`; with `prompt`, the prompt's text as well."""
    return Group(
        Text(trace.summary()),
        "",
        _text(trace, prompt=prompt),
        "",
        _legend(),
        "",
        _hub_table(trace, hubs),
        "",
        _path_table(trace, paths, "steps"),
        "",
        _path_table(trace, paths, "words"),
    )


def _text(trace: Trace, *, prompt: bool) -> RenderableType:
    begin, end = trace.response.start, trace.response.stop
    first = int(trace.offsets[begin:end, 0].min(initial=len(trace.text)))
    text = Text(printable(trace.text))
    for token, style in _styles(trace):
        text.stylize(style, *trace.offsets[token])
    for token in trace.answer:
        text.stylize(ANSWER_STYLE, *trace.offsets[token])
    for hub in trace.hubs():
        span = hub.unit.span
        text.stylize("underline", trace.offsets[span.start, 0], trace.offsets[span.stop - 1, 1])
    if not prompt:
        return Padding(text[first:], (0, 2))
    return Padding(_without_patches(trace, text), (0, 2))


def _without_patches(trace: Trace, text: Text) -> Text:
    """An image as one mark: what its tokens spell says nothing."""
    shown = Text()
    reached = 0
    marks_T = image_marks(trace.images, len(trace))
    for token in np.flatnonzero(marks_T):
        start, stop = trace.offsets[token]
        shown.append_text(text[reached:start])
        if token == 0 or marks_T[token - 1] != marks_T[token]:
            shown.append(f"[image {marks_T[token]}]", style="italic")
        reached = max(reached, stop)
    return shown.append_text(text[reached:])


def _styles(trace: Trace) -> Iterator[tuple[int, str]]:
    """Reasoning tokens that carry flow, with the style of their rank among them all."""
    inside = np.flatnonzero(reasoning(trace))
    ranked = inside[np.argsort(-trace.flow[inside], kind="stable")]
    for rank, token in enumerate(ranked):
        style = next((style for share, style in LEVELS if rank < share * len(ranked)), None)
        if style is not None and trace.flow[token] > 0:
            yield int(token), style


def _legend() -> Text:
    legend = Text("flow  ")
    for share, style in reversed(LEVELS):
        legend.append(f" top {share:.0%} ", style=style).append(" ")
    return legend.append(" answer ", style=ANSWER_STYLE).append("  ").append("hub", style="underline")


def _hub_table(trace: Trace, n: int) -> Table:
    table = Table("token", "hub", "in step", title="Hubs", title_justify="left", box=None, pad_edge=False)
    table.add_column("flow", justify="right")
    table.add_column("by place", justify="right")
    table.add_column("fan-in", justify="right")
    table.add_column("fan-out", justify="right")
    table.add_column("kind")
    for hub in trace.hubs(n):
        table.add_row(
            str(hub.unit.span.start),
            Text(hub.label),
            str(hub.step),
            f"{hub.flow:.1%}",
            "" if hub.expected is None else f"{hub.expected:.1%}",
            f"{hub.fan_in:.1f}",
            f"{hub.fan_out:.1f}",
            hub.kind,
        )
    return table


def _path_table(trace: Trace, k: int, level: str) -> Table:
    title = f"Strongest paths through {level}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("share", justify="right")
    table.add_column("path", min_width=len(title))
    for path in trace.paths(k, level=level):
        table.add_row(f"{path.share:.1%}", Text(path.way))
    return table
