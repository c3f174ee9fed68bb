"""Comparisons at the terminal: what is shared, what became of the hubs, the steps side by side."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flowtracer.text.printable import printable
from flowtracer.trace.alignment import StepPair
from flowtracer.trace.compare import Comparison
from flowtracer.trace.measures import hub_share, identity
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import Hub

KEPT, LOST, NEW = "#3182bd", "#e6550d", "#31a354"
_STEP_LENGTH = 200


def render_comparison(comparison: Comparison) -> RenderableType:
    """Two traces for `rich.print`."""
    return Group(
        Text(comparison.summary()),
        "",
        identities([comparison.a, comparison.b], ["A", "B"]),
        "",
        _hubs(comparison),
        "",
        _steps(comparison),
    )


def plain_table(title: str, *columns: str) -> Table:
    """A table without lines under its title."""
    return Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)


def identities(traces: list[Trace], names: list[str]) -> Table:
    """A row for each response: what it answered, and what of the flow passes its hubs."""
    table = plain_table("Responses", "", "id", "answer", "verdict")
    table.add_column("tokens", justify="right")
    table.add_column("through hubs", justify="right")
    for name, trace in zip(names, traces, strict=True):
        known = identity(trace)
        table.add_row(
            name,
            Text(printable(known["id"])),
            Text(printable(known["answer"])),
            known["verdict"] or "",
            str(len(trace)),
            f"{hub_share(trace):.0%}",
        )
    return table


def _hubs(comparison: Comparison) -> Table:
    table = plain_table("Hubs", "", "word")
    for header in ("at in A", "flow in A", "at in B", "flow in B"):
        table.add_column(header, justify="right")
    table.add_column("kind")

    def place(hub: Hub | None) -> tuple[str, str]:
        return ("", "") if hub is None else (str(hub.unit.span.start), f"{hub.flow:.1%}")

    rows: list[tuple[str, str, Hub | None, Hub | None]] = [
        *(("kept", KEPT, a, b) for a, b in comparison.hubs_kept),
        *(("lost", LOST, a, None) for a in comparison.hubs_lost),
        *(("new", NEW, None, b) for b in comparison.hubs_new),
    ]
    for fate, style, a, b in rows:
        found = [hub for hub in (a, b) if hub is not None]
        kinds = dict.fromkeys(hub.kind for hub in found)
        table.add_row(
            Text(fate, style=style),
            Text(found[0].label),
            *place(a),
            *place(b),
            " → ".join(kinds),
        )
    return table


def _steps(comparison: Comparison) -> Table:
    shared = comparison.shared_steps
    title = f"Steps after the {shared} shared" if shared > 1 else "Steps of the responses"
    table = Table("", title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("A", ratio=1)
    table.add_column("B", ratio=1)
    for pair in comparison.steps:
        table.add_row(
            _mark(pair), _step_text(comparison.a, pair.a, pair, LOST), _step_text(comparison.b, pair.b, pair, NEW)
        )
    return table


def _mark(pair: StepPair) -> str:
    if pair.a is None or pair.b is None:
        return "-" if pair.b is None else "+"
    return "=" if pair.likeness == 1 else "~"


def _step_text(trace: Trace, step: int | None, pair: StepPair, alone: str) -> Text:
    if step is None:
        return Text("")
    text = printable(trace.slice_text(trace.step_spans[step])).strip()
    shown = text if len(text) <= _STEP_LENGTH else text[: _STEP_LENGTH - 1] + "…"
    return Text(shown, style=alone if pair.a is None or pair.b is None else "")
