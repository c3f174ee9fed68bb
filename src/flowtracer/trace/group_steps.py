"""What right and wrong responses to one prompt share, where they part, and what flowed differently in them.

1. *Right and wrong*: as the responses were graded; where none was, right stands for a reward above the group's mean and
   wrong for one below.
2. *Steps*: the response's sentences and lines before its answer, with the share of the flow that passes each, and the
   answer behind them. Two are the same where they say the same (`said` of `alignment.py`).
3. *Shared* is a step that two responses or more say, wherever in them. Where one says it more than once, the place
   through which most flows counts.
4. *Tree*: responses that begin with the same steps stay together; a branch is a run of steps up to where they part.
5. *Differently*: the mean share in right responses less that in wrong ones, among those that say the step, with its
   interval (`difference_of_means`), each by itself: of twenty, one leaves out 0 by chance.

Nothing depends on the order of the responses but the numbers that they go by.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.intervals import Interval, difference_of_means
from flowtracer.text.numbers import parse_number
from flowtracer.text.printable import one_line
from flowtracer.text.words import split_words
from flowtracer.trace.alignment import said
from flowtracer.trace.measures import reward, step_of, verdict
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import UnitFlow
from flowtracer.trace.units import answer_span

_LONGEST = 160
"""Characters of a step's text that are shown."""
_ANSWER = None
"""What no step says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Which responses of a group are right and which are wrong."""

    of: tuple[str | None, ...]
    """Of each response "right", "wrong", or None where it is not known."""
    told_by: str | None
    """"verdict", "reward" against the group's mean, or None where nothing tells."""

    def count(self, side: str, members: Iterable[int]) -> int:
        """How many of some responses are on a side."""
        return sum(self.of[member] == side for member in members)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowBySide:
    """Mean share of the flow through one thing, in the responses that have it."""

    all: float
    right: float | None
    """None where no right response has it."""
    wrong: float | None
    difference: Interval | None
    """Right less wrong; None where one of them lacks it, bounds infinite where these are too few to tell."""

    @property
    def told(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: None for bounds that are infinite."""
        known = dataclasses.asdict(self)
        if self.difference is not None:
            known["difference"] = {
                name: value if math.isfinite(value) else None for name, value in known["difference"].items()
            }
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStep:
    """A step that several responses of a group say."""

    text: str
    """The shortest of the ways they say it, on one line."""
    members: tuple[int, ...]
    """Responses that say it."""
    places: tuple[int, ...]
    """Of each of these the number of its step, the first where it says it more than once."""
    right: int
    """How many of them are right."""
    wrong: int
    flow: FlowBySide


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A run of steps that some responses of a group say after the same beginning."""

    parent: int | None
    """The branch that it leaves, by its place in the tree; None for the first, which all are on."""
    step: int
    """Which of a response's steps the first of its is; 1 is the first, lines without a word aside."""
    texts: tuple[str, ...]
    """Its steps, each the shortest of the ways they say it; none where all part at once."""
    shares: tuple[float, ...]
    """Mean share of the flow through each of them."""
    answer: str | None
    """The answer that it ends with; None where it parts into others."""
    members: tuple[int, ...]
    """Responses that go this way."""
    places: tuple[int, ...]
    """Of each of these the number of the step, or of the answer, that it takes this way with."""
    right: int
    """How many of them are right."""
    wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidStep:
    """A step of one response, or the answer that it ends with."""

    key: Hashable
    """What it says: the same where others say the same."""
    text: str
    number: int
    """Of the step in its response, from 1."""
    share: float
    """Of the flow, through the step but for the answer in it."""


def told_sides(traces: Sequence[Trace]) -> Sides:
    """Which responses are right and which are wrong, as they were graded, else by reward."""
    verdicts = tuple(verdict(trace) for trace in traces)
    if any(verdicts):
        return Sides(of=verdicts, told_by="verdict")
    rewards = [reward(trace.metadata) for trace in traces]
    known = [given for given in rewards if given is not None]
    # Rewards that are all alike may differ from their mean by its rounding.
    if len(set(known)) < 2:
        return Sides(of=(None,) * len(traces), told_by=None)
    mean = math.fsum(known) / len(known)
    of = tuple(None if given is None or given == mean else "right" if given > mean else "wrong" for given in rewards)
    return Sides(of=of, told_by="reward")


def flow_by_side(shares: Mapping[int, float], sides: Sides) -> FlowBySide:
    """Means of the shares that some responses have, by their numbers, and how far right is from wrong."""
    by_side = {
        side: np.sort([share for member, share in shares.items() if sides.of[member] == side])
        for side in ("right", "wrong")
    }
    right, wrong = (float(found.mean()) if len(found) else None for found in by_side.values())
    return FlowBySide(
        all=math.fsum(shares.values()) / len(shares),
        right=right,
        wrong=wrong,
        difference=None if right is None or wrong is None else difference_of_means(*by_side.values()),
    )


def said_steps(trace: Trace) -> list[SaidStep]:
    """The steps of a response before its answer, and the answer as the last."""
    answer = answer_span(trace)
    reading = UnitFlow(trace, "steps")
    flow = reading.graph.flow.tolist()
    steps = [
        SaidStep(key=said(text), text=_line(text), number=unit.step, share=min(flow[place], 1.0))
        for place, unit in enumerate(reading.units)
        if unit.kind == "step" and unit.span.stop <= answer.start and split_words(trace.slice_text(unit.span))
        for text in [trace.slice_text(trace.step_spans[unit.step])]
    ]
    value = parse_number(trace.answer_text)
    key = _ANSWER, said(trace.answer_text) if value is None else value
    text = _line(trace.answer_text) or "no answer"
    return [*steps, SaidStep(key=key, text=text, number=step_of(trace, answer.start), share=1.0)]


def shared_steps(responses: Sequence[Sequence[SaidStep]], sides: Sides) -> tuple[SharedStep, ...]:
    """Steps that two responses or more say, their answers aside.

    First those of which right and wrong responses let different amounts pass by an interval without 0, then by the size
    of that difference; those that one side alone says come behind, those of most responses first.
    """
    saying: dict[Hashable, dict[int, list[SaidStep]]] = {}
    for member, steps in enumerate(responses):
        for step in steps[:-1]:
            saying.setdefault(step.key, {}).setdefault(member, []).append(step)
    found = [
        SharedStep(
            text=_shortest(step for steps in having.values() for step in steps),
            members=tuple(having),
            places=tuple(steps[0].number for steps in having.values()),
            right=sides.count("right", having),
            wrong=sides.count("wrong", having),
            flow=flow_by_side({member: max(step.share for step in steps) for member, steps in having.items()}, sides),
        )
        for having in saying.values()
        if len(having) > 1
    ]
    return tuple(sorted(found, key=lambda step: (*by_difference(step.flow), -len(step.members), step.text)))


def by_difference(flow: FlowBySide) -> tuple[bool, float]:
    """What to sort by: a difference that tells first, then by its size; none comes last."""
    return not flow.told, math.inf if flow.difference is None else -abs(flow.difference.mean)


def branches(responses: Sequence[Sequence[SaidStep]], sides: Sides) -> tuple[Branch, ...]:
    """The tree of what responses begin with, each branch before those that leave it, the widest first."""
    found: list[Branch] = []
    waiting: list[tuple[int | None, int, list[int]]] = [(None, 0, list(range(len(responses))))]
    while waiting:
        parent, begun, members = waiting.pop()
        parted = _parted(responses, members)
        # All end with an answer, and no step is the same as an answer, so none is the beginning of another.
        ended = parted == len(responses[members[0]])
        run = [[responses[member][at] for member in members] for at in range(begun, parted - ended)]
        found.append(
            Branch(
                parent=parent,
                step=begun + 1,
                texts=tuple(map(_shortest, run)),
                shares=tuple(math.fsum(step.share for step in steps) / len(steps) for steps in run),
                answer=_shortest(responses[member][-1] for member in members) if ended else None,
                members=tuple(members),
                places=tuple(responses[member][begun].number for member in members),
                right=sides.count("right", members),
                wrong=sides.count("wrong", members),
            )
        )
        waiting += [(len(found) - 1, parted, way) for way in ([] if ended else _ways(responses, members, parted))]
    return tuple(found)


def _ways(responses: Sequence[Sequence[SaidStep]], members: Sequence[int], at: int) -> list[list[int]]:
    """Responses by what they say as their step `at`, the narrowest way first."""
    ways: dict[Hashable, list[int]] = {}
    for member in members:
        ways.setdefault(responses[member][at].key, []).append(member)

    def order(way: list[int]) -> tuple[int, str, bool]:
        return -len(way), _shortest(responses[member][at] for member in way), at + 1 == len(responses[way[0]])

    return sorted(ways.values(), key=order, reverse=True)


def _parted(responses: Sequence[Sequence[SaidStep]], members: Sequence[int]) -> int:
    """How many steps some responses begin with that are the same in all of them."""
    columns = zip(*(responses[member] for member in members), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda steps: len({step.key for step in steps}) == 1, columns))


def _shortest(steps: Iterable[SaidStep]) -> str:
    return one_line(min((step.text for step in steps), key=lambda text: (len(text), text)), _LONGEST)


def _line(text: str) -> str:
    return " ".join(text.split())
