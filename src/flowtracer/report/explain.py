"""A trace in words: summary, hubs, paths through steps and words, steps and layers, as plain text or as data.

The text holds nothing that steers a terminal, whatever the model wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flowtracer.text.printable import one_line, printable
from flowtracer.trace.measures import identity, made_by
from flowtracer.trace.trace import Trace

_STEP_LENGTH = 72


def explanation(trace: Trace, *, hubs: int = 8, paths: int = 5) -> dict[str, Any]:
    """What carried the answer, ready for JSON."""
    return {
        "summary": trace.summary(),
        **identity(trace),
        "answer_rule": trace.answer_rule,
        "model": trace.model,
        "layers": list(trace.layers),
        "capacity": trace.capacity,
        "graph": trace.graph,
        "ends": trace.ends,
        "hubs": [{**hub.to_dict(), "effect": trace.effects.get(hub.token)} for hub in trace.hubs(hubs)],
        "paths": [path.to_dict() for path in trace.paths(paths)],
        "word_paths": [path.to_dict() for path in trace.paths(paths, level="words")],
        "steps": [
            {"index": step.index, "text": step.text, "flow": step.flow, "inflow": step.inflow, "outflow": step.outflow}
            for step in trace.steps()
        ],
        "layer_flow": trace.layer_flow.tolist(),
    }


def explain(trace: Trace, *, hubs: int = 8, paths: int = 5) -> str:
    """What carried the answer, as plain text."""
    known = explanation(trace, hubs=hubs, paths=paths)
    verdict = f", {known['verdict']}" if known["verdict"] else ""
    name = f"{printable(known['id'])}: " if known["id"] else ""
    made = f", {printable(made_by(trace))}" if made_by(trace) else ""
    parts = [
        [f"{name}{known['summary']}"],
        [
            f"{known['tokens']} tokens, {len(trace.response)} of them the response; {printable(trace.model)}{made}; "
            f"answer {printable(trace.answer_text)}{verdict}, found by the rule “{trace.answer_rule}”"
        ],
        ["Hubs", *_columns(_hub_rows(known["hubs"]))],
        ["Strongest paths through steps", *_columns(_path_rows(known["paths"]))],
        ["Strongest paths through words", *_columns(_path_rows(known["word_paths"]))],
        ["Steps", *_columns(_step_rows(known["steps"]))],
    ]
    if trace.layer_flow.any():
        shares = zip(trace.layers, trace.layer_flow, strict=True)
        parts.append(["Layers", "  " + "  ".join(f"{layer}: {share:.0%}" for layer, share in shares)])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


Cells = Sequence[str]


def _hub_rows(hubs: Iterable[dict[str, Any]]) -> list[Cells]:
    hubs = list(hubs)
    measured = any(hub["effect"] is not None for hub in hubs)
    header = ("flow", "by place", "token", "word", "step", "fan-in", "fan-out", *["hidden, log p"] * measured, "kind")
    return [
        header,
        *(
            (
                f"{hub['flow']:.1%}",
                "-" if hub["expected"] is None else f"{hub['expected']:.1%}",
                str(hub["start"]),
                hub["label"],
                str(hub["step"]),
                f"{hub['fan_in']:.1f}",
                f"{hub['fan_out']:.1f}",
                *["-" if hub["effect"] is None else f"{hub['effect']:+.2f}"] * measured,
                hub["kind"],
            )
            for hub in hubs
        ),
    ]


def _path_rows(paths: Iterable[dict[str, Any]]) -> list[Cells]:
    return [(f"{path['share']:.1%}".rjust(6), path["way"]) for path in paths]


def _step_rows(steps: Iterable[dict[str, Any]]) -> list[Cells]:
    return [
        ("step", "in", "out", "text"),
        *(
            (
                str(step["index"]),
                f"{step['inflow']:.2f}",
                f"{step['outflow']:.2f}",
                one_line(step["text"], _STEP_LENGTH),
            )
            for step in steps
        ),
    ]


def _columns(rows: list[Cells]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
