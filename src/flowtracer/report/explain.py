"""A trace in words: summary, hubs, paths, steps and layers, as plain text or as data.

The text holds nothing that steers a terminal, whatever the model wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from flowtracer.trace.measures import hub_dict, identity, step_of
from flowtracer.trace.trace import Trace, printable

_STEP_LENGTH = 72


def explanation(trace: Trace, *, hubs: int = 8, paths: int = 5) -> dict[str, Any]:
    """What carried the answer, ready for JSON."""
    return {
        "summary": trace.summary(),
        **identity(trace),
        "answer_rule": trace.answer_rule,
        "model": trace.model,
        "layers": list(trace.layers),
        "hubs": [
            {
                **hub_dict(trace, hub),
                "flow": float(trace.flow[hub.token]),
                "step": step_of(trace, hub.token),
                "effect": trace.effects.get(hub.token),
            }
            for hub in trace.hubs(hubs)
        ],
        "paths": [
            {**asdict(path), "labels": [trace.label(token) for token in path.tokens]} for path in trace.paths(paths)
        ],
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
    parts = [
        [f"{name}{known['summary']}"],
        [
            f"{known['tokens']} tokens, {len(trace.response)} of them the response; {printable(trace.model)}; "
            f"answer {printable(trace.answer_text)}{verdict}, found by the rule “{trace.answer_rule}”"
        ],
        ["Hubs", *_columns(_hub_rows(known["hubs"]))],
        ["Strongest paths", *(f"  {path['share']:7.2%}  {' → '.join(path['labels'])}" for path in known["paths"])],
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
    header = ("flow", "token", "word", "step", "fan-in", "fan-out", *["hidden, log p"] * measured, "kind")
    return [
        header,
        *(
            (
                f"{hub['flow']:.1%}",
                str(hub["token"]),
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


def _step_rows(steps: Iterable[dict[str, Any]]) -> list[Cells]:
    def shortened(text: str) -> str:
        folded = printable(" ".join(text.split()))
        return folded if len(folded) <= _STEP_LENGTH else folded[: _STEP_LENGTH - 1] + "…"

    return [
        ("step", "in", "out", "text"),
        *(
            (str(step["index"]), f"{step['inflow']:.2f}", f"{step['outflow']:.2f}", shortened(step["text"]))
            for step in steps
        ),
    ]


def _columns(rows: list[Cells]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
