"""A trace in one sentence: which steps and which numbers carried the answer, and what came straight from the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flowtracer.shapes import Float, ndarray
from flowtracer.text.printable import printable
from flowtracer.trace.images import image_marks
from flowtracer.trace.unit_flow import UnitFlow

if TYPE_CHECKING:
    from flowtracer.trace.trace import Trace

_STEPS = 2
_NUMBERS = 3
_CANDIDATES = 12
"""Hubs among which numbers are looked for: what carries less than so many others is not worth a sentence."""


def summary(trace: Trace) -> str:
    """One sentence for a reader who knows the question: shares are probabilities that a walk passes."""
    answer = f"The answer {printable(trace.answer_text)} draws"
    reading = UnitFlow(trace, "steps")
    steps = reading.hubs(_STEPS, by="flow", prompt=False)
    shown = _off_images(trace)
    if not steps:
        return f"{answer} its flow straight from the prompt{shown}."
    first, *others = steps
    through = f"{first.flow:.0%} of its flow through {first.unit.name}"
    through += "".join(f" and {hub.flow:.0%} through {hub.unit.name}" for hub in others)
    names = _named(trace)
    above = f", above all by {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}" if names else ""
    least = "" if trace.edges.complete else "at least "
    return f"{answer} {through}{above}; {least}{_straight(reading):.0%} comes straight from the prompt{shown}."


def _straight(steps: UnitFlow) -> float:
    """Probability that a walk steps from the prompt into the answer; a lower bound if edges were cut."""
    edges = steps.graph.edges
    prompt = np.array([unit.kind == "prompt" for unit in steps.units])
    return float(edges.flow[prompt[edges.source] & steps.graph.sink[edges.target]].sum())


def image_shares(trace: Trace) -> Float[ndarray, " N"]:
    """Of each image the probability that a walk leaves the prompt from a patch of it; lower bounds if edges were cut.

    What *enters* at patches says nothing: the source gives every token of the question as much.
    """
    edges, marks_T = trace.edges, image_marks(trace.images, len(trace))
    crossing = (edges.source < trace.response.start) & (edges.target >= trace.response.start)
    marks_E = marks_T[edges.source[crossing]]
    return np.bincount(marks_E, edges.flow[crossing], len(trace.images) + 1)[1:]


def _off_images(trace: Trace) -> str:
    if not trace.images:
        return ""
    which = "the image" if len(trace.images) == 1 else f"the {len(trace.images)} images"
    least = "" if trace.edges.complete else "at least "
    return f", and {least}{image_shares(trace).sum():.0%} leaves the prompt from {which}"


def _named(trace: Trace) -> list[str]:
    """The numbers among the hubs, or where there are none the words."""
    hubs = trace.hubs(_CANDIDATES)
    numbers, words = (
        list(dict.fromkeys(hub.unit.name for hub in hubs if hub.unit.kind == kind)) for kind in ("number", "word")
    )
    return (numbers or words)[:_NUMBERS]
