"""Pages that hold traces against each other: two side by side, or a group as small multiples."""

from __future__ import annotations

import dataclasses
from typing import Any

from flowtracer.report.page.html import render
from flowtracer.report.page.payload import pack, pack_trace
from flowtracer.text.printable import one_line
from flowtracer.trace.compare import Comparison
from flowtracer.trace.group import GroupComparison
from flowtracer.trace.measures import identity
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import Hub

COMPARED_EDGES = 1_200
"""Largest edges of each of two traces: as many as a trace's own page shows at first."""
GROUP_EDGES = 500


def comparison_page(comparison: Comparison) -> str:
    """Two responses to one prompt: where they part, and which hubs were kept, lost and new."""
    header = {
        "summary": comparison.summary(),
        "shared_tokens": comparison.shared_tokens,
        "shared_steps": comparison.shared_steps,
        "divergence": None if comparison.divergence is None else dataclasses.asdict(comparison.divergence),
        "kept": [[_hub(a), _hub(b)] for a, b in comparison.hubs_kept],
        "lost": [_hub(hub) for hub in comparison.hubs_lost],
        "new": [_hub(hub) for hub in comparison.hubs_new],
        "steps": [dataclasses.asdict(pair) for pair in comparison.steps],
    }
    return render(
        "compare",
        title=f"{_name(comparison.a)} and {_name(comparison.b)}",
        summary=one_line(comparison.summary()),
        data=pack(header, {"difference": comparison.throughput_difference}),
        traces=[pack_trace(trace, COMPARED_EDGES) for trace in (comparison.a, comparison.b)],
    )


def group_page(group: GroupComparison) -> str:
    """Several responses to one prompt: where they part, the steps and hubs that they share, and each as a picture."""
    known = group.to_dict()
    header = {
        **{name: known[name] for name in ("shared_tokens", "caveat", "sides", "hubs", "steps", "tree")},
        "names": [_name(trace) for trace in group.traces],
    }
    return render(
        "group",
        title=f"{len(group.traces)} responses",
        summary=one_line(group.summary()),
        told=group.sides.told_by is not None,
        data=pack(header, {}),
        traces=[pack_trace(trace, GROUP_EDGES) for trace in group.traces],
    )


def _hub(hub: Hub) -> dict[str, Any]:
    return {"token": hub.token, "label": hub.label, "kind": hub.kind, "flow": hub.flow}


def _name(trace: Trace) -> str:
    known = identity(trace)
    return one_line(known["id"] or f"answer {known['answer']}")
