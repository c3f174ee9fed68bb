"""A group of responses at the terminal: where right and wrong part, the steps that they share, and their hubs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flowtracer.report.terminal.comparison import identities, plain_table
from flowtracer.text.printable import one_line
from flowtracer.trace.compare import counted
from flowtracer.trace.group import GroupComparison
from flowtracer.trace.group_steps import Branch, FlowBySide

_WAYS = 6
"""Branches that leave one parting, the widest, that are shown; the others are counted."""
_STEPS = 20
_HUBS = 12
_STEP_LENGTH = 72
_DIFFERENCE = "right - wrong"


def render_group(group: GroupComparison) -> RenderableType:
    """Several traces for `rich.print`."""
    return Group(
        Text(group.summary()),
        "",
        Text(group.caveat()),
        "",
        identities(list(group.traces), [str(index) for index in range(len(group.traces))]),
        "",
        Text("Where they part", style="italic"),
        _tree(group),
        "",
        _steps(group),
        "",
        _hubs(group),
    )


def _tree(group: GroupComparison) -> Tree:
    leaving: dict[int | None, list[int]] = {}
    for place, branch in enumerate(group.tree):
        leaving.setdefault(branch.parent, []).append(place)
    root = Tree(_branch(group.tree[:1]), guide_style="dim")
    waiting = [(0, root)]
    while waiting:
        place, shown = waiting.pop()
        ways = leaving.get(place, [])
        waiting += [(way, shown.add(_branch([group.tree[way]]))) for way in ways[:_WAYS]]
        if len(ways) > _WAYS:
            shown.add(_branch([group.tree[way] for way in ways[_WAYS:]]))
    return root


def _branch(ways: Sequence[Branch]) -> Text:
    """How many go this way, the first step of it, how many follow, and its answer; of several ways how many."""
    way = ways[0]
    right, wrong = (sum(getattr(one, side) for one in ways) for side in ("right", "wrong"))
    told = [f"{number} {side}" for number, side in ((right, "right"), (wrong, "wrong")) if number]
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(", ".join(told) or counted(sum(len(one.members) for one in ways), "response"), style="bold")
    if len(ways) > 1:
        return line.append(f"  on {len(ways)} more ways", style="dim")
    if way.texts:
        more = f" + {counted(len(way.texts) - 1, 'step')}" if len(way.texts) > 1 else ""
        line.append(f"  {way.step}. {one_line(way.texts[0], 36)}").append(f" {way.shares[0]:.0%}{more}", style="dim")
    elif way.answer is None:
        line.append("  begin")
    return line if way.answer is None else line.append(f"  → {one_line(way.answer, 20)}")


def _steps(group: GroupComparison) -> Table:
    table = plain_table("Steps that several say", "step")
    sides = ("right", "wrong") if group.sides.told_by else ("all",)
    for header in (*(sides if len(sides) > 1 else ("responses",)), *(f"flow, {side}" for side in sides)):
        table.add_column(header, justify="right")
    if len(sides) > 1:
        table.add_column(_DIFFERENCE, justify="right")
    for step in group.steps[:_STEPS]:
        flows = [_share(getattr(step.flow, side)) for side in sides]
        counts = [str(step.right), str(step.wrong)] if len(sides) > 1 else [str(len(step.members))]
        table.add_row(
            Text(one_line(step.text, _STEP_LENGTH)), *counts, *flows, *[_difference(step.flow)] * (len(sides) > 1)
        )
    if len(group.steps) > _STEPS:
        table.add_row(Text(f"and {len(group.steps) - _STEPS} more", style="dim"))
    return table


def _hubs(group: GroupComparison) -> Table:
    table = plain_table("Hubs by how many responses have them", "word", "kind")
    told = group.sides.told_by is not None
    for header in ("right", "wrong", _DIFFERENCE) if told else ("responses", "flow"):
        table.add_column(header, justify="right")
    for hub in group.hubs[:_HUBS]:
        known = [str(hub.right), str(hub.wrong), _difference(hub.flow)]
        table.add_row(Text(hub.label), hub.kind, *(known if told else [str(len(hub.members)), _share(hub.flow.all)]))
    if len(group.hubs) > _HUBS:
        table.add_row(Text(f"and {len(group.hubs) - _HUBS} more", style="dim"))
    return table


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _difference(flow: FlowBySide) -> Text:
    """In points, with its interval; strong where that leaves out 0."""
    if flow.difference is None:
        return Text("")
    mean, low, high = (100 * value for value in (flow.difference.mean, flow.difference.low, flow.difference.high))
    interval = f"[{low:.1f}, {high:.1f}]" if math.isfinite(low) else "too few"
    return Text(f"{mean:+.1f} {interval}", style="bold" if flow.told else "")
