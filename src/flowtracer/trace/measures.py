"""What is said of a trace in many places, and must be the same in all of them: words and single numbers.

*Reasoning* is the response before its answer, and before the positions that predict it where the flow ends there. What
comes behind carries no flow, so it is no part of what flow could pass through.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowtracer.shapes import Bool, Float, ndarray
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import Hub

HUBS = 5
"""How many hubs the share through them is of."""
CONCENTRATED = 0.1
"""Flow concentration is the share of the reasoning's flow that this share of its tokens carries."""


def verdict(trace: Trace) -> str | None:
    """Whether the rollout was graded "right" or "wrong"; None where it was not graded."""
    correct = trace.metadata.get("is_correct")
    return None if correct is None else "right" if correct else "wrong"


def reward(metadata: Mapping[str, Any]) -> float | None:
    """A rollout's `reward`, or its `score` as verl calls it, where it has one that is a finite number."""
    given = (metadata.get(name) for name in ("reward", "score"))
    numbers = (value for value in given if isinstance(value, int | float) and abs(value) <= sys.float_info.max)
    return next(map(float, numbers), None)


def identity(trace: Trace) -> dict[str, Any]:
    """What a trace is called and what became of it."""
    return {
        "id": str(trace.metadata.get("id", "")),
        "tokens": len(trace),
        "answer": trace.answer_text,
        "verdict": verdict(trace),
    }


def made_by(trace: Trace) -> str:
    """By what a trace was made, as in "layered walks, weighed by alti"; empty for the default, attention on tokens."""
    weighed = "" if trace.capacity == "attention" else f"weighed by {trace.capacity}"
    ends = " that end in the question" if trace.ends == "question" else ""
    walks = f"layered walks{ends}" if trace.graph == "layered" else ""
    return ", ".join(filter(None, (walks, weighed)))


def hub_share(trace: Trace, hubs: Sequence[Hub] | None = None) -> float:
    """Share of the flow that passes the top hubs, or those given; a lower bound if edges were cut."""
    chosen = trace.hubs(HUBS) if hubs is None else hubs
    return trace.share_through([token for hub in chosen for token in hub.unit.span])


def step_of(trace: Trace, token: int) -> int:
    """Index of the step that a token stands in."""
    return next(index for index, span in enumerate(trace.step_spans) if span.start <= token < span.stop)


def reasoning(trace: Trace) -> Bool[ndarray, " T"]:
    """Tokens of the response before its answer: those that flow passes through on its way."""
    positions = np.arange(len(trace))
    return (positions >= trace.response.start) & (positions < min(trace.answer.start, trace.sink.start))


def concentration(trace: Trace, top: float = CONCENTRATED) -> float:
    """Share of the reasoning's flow on its top share of tokens: `top` if all carry alike, 1 if few do, 0 if none."""
    shares = concentration_curve(trace, np.array([top]))
    return 0.0 if shares is None else float(shares[0])


def concentration_curve(trace: Trace, top: Float[ndarray, " N"]) -> Float[ndarray, " N"] | None:
    """Share of the reasoning's flow that its top shares of tokens carry; None where nothing flows.

    Between two tokens a share counts part of the smaller one, so that flat flow gives `top` itself at any length.
    """
    flow = np.sort(trace.flow[reasoning(trace)])[::-1]
    if not flow.sum() > 0:
        return None
    return np.interp(top, np.arange(len(flow) + 1) / len(flow), np.append(0, flow.cumsum()) / flow.sum())
