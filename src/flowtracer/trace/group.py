"""A group of responses to one prompt: what right and wrong ones share, where they part, and what flowed differently.

1. The *shared prefix* is the longest run of leading tokens with the same text that all have.
2. *Hubs* are words by the responses that have them among their largest, and by what flows through them in all that say
   them: through the place that carries most, where one says a word more than once.
3. *Steps* that responses share, and the *tree* of those that they begin with: see `group_steps.py`.
4. *Right and wrong part* at the first place of the tree whose branches are right in different shares.

Numpy only: saved traces can be compared without torch and without the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.intervals import can_tell
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.trace.compare import counted, refuse_strangers, shared_prefix, told_answer
from flowtracer.trace.group_steps import (
    Branch,
    FlowBySide,
    SharedStep,
    Sides,
    branches,
    flow_by_side,
    said_steps,
    shared_steps,
    told_sides,
)
from flowtracer.trace.measures import identity
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import UnitFlow


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHub:
    """A word that is a hub in some responses of a group."""

    label: str
    kind: str
    members: tuple[int, ...]
    """Responses that have it among their hubs."""
    right: int
    """How many of them are known to be right."""
    wrong: int
    flow: FlowBySide
    """Through the word, in all responses that say it in their reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupComparison:
    """Several responses to one prompt."""

    traces: tuple[Trace, ...]
    sides: Sides
    """Which are right and which are wrong."""
    shared_tokens: int
    """Leading tokens that all share."""
    pair_tokens: Int[ndarray, "G G"]
    """Leading tokens that each pair shares; on the diagonal the length of each."""
    hubs: tuple[GroupHub, ...]
    """Hubs of the responses by word and kind, those of most responses first."""
    steps: tuple[SharedStep, ...]
    """Steps that several responses say; those first in which right and wrong let most different amounts flow."""
    tree: tuple[Branch, ...]
    """The steps that responses begin with; the first branch is what all of them say."""
    prompt_throughput: Float[ndarray, "G P"]
    """What each response makes of the tokens of the prompt."""

    def prompt_difference(self) -> Float[ndarray, " P"] | None:
        """Mean throughput of the prompt's tokens in right responses less that in wrong ones; None without either."""
        sides = np.array([side or "" for side in self.sides.of])
        right, wrong = self.prompt_throughput[sides == "right"], self.prompt_throughput[sides == "wrong"]
        return right.mean(0) - wrong.mean(0) if len(right) and len(wrong) else None

    def parting(self) -> int | None:
        """The place in the tree of the first branch behind which right and wrong go different ways; None without one.

        First is what ends earliest, and of such branches what most responses are on.
        """
        right_shares: dict[int, set[float]] = {}
        for branch in self.tree:
            if branch.parent is not None and branch.right + branch.wrong:
                share = branch.right / (branch.right + branch.wrong)
                right_shares.setdefault(branch.parent, set()).add(share)
        found = [place for place, shares in right_shares.items() if len(shares) > 1]
        ends = {place: self.tree[place].step + len(self.tree[place].texts) for place in found}
        return min(found, key=lambda place: (ends[place], -len(self.tree[place].members)), default=None)

    def summary(self) -> str:
        """One sentence: what they share, their answers, where right and wrong part, and the most common hub."""
        answers = list(dict.fromkeys(told_answer(trace) for trace in self.traces))
        shown = ", ".join(answers[:4]) + (f" and {len(answers) - 4} more" if len(answers) > 4 else "")
        sentence = f"{len(self.traces)} responses share {counted(self.shared_tokens, 'token')} and answer {shown}"
        if (place := self.parting()) is not None:
            sentence += f"; right and wrong part at step {self.tree[place].step + len(self.tree[place].texts)}"
        if not self.hubs:
            return f"{sentence}; none has a hub."
        hub = self.hubs[0]
        return f"{sentence}; the most common hub is “{hub.label}”, in {len(hub.members)} of them."

    def caveat(self) -> str:
        """What the group can tell of right against wrong, and what it is too small for."""
        ways = {(t.model, t.layers, t.at, t.capacity, t.graph, t.ends) for t in self.traces}
        differently = (
            " They were traced in different ways, so their flows are not on one scale." if len(ways) > 1 else ""
        )
        return self._told() + differently

    def _told(self) -> str:
        if self.sides.told_by is None:
            return "None of the responses is known to be right or wrong, nor has a reward that tells it from others."
        counts = {side: self.sides.of.count(side) for side in ("right", "wrong", None)}
        parts = [f"{number} {side or 'neither'}" for side, number in counts.items() if number]
        by_reward = ", by reward above or below the group's mean" if self.sides.told_by == "reward" else ""
        standing = ", ".join(parts) + by_reward
        if not counts["right"] or not counts["wrong"]:
            return f"{standing}: there is nothing to hold them against."
        if not can_tell(counts["right"], counts["wrong"]):
            return f"{standing}: too few to tell a difference in flow from chance, however large it is."
        return f"{standing}. Intervals are 95 %, each by itself: of twenty, one leaves out 0 by chance."

    def to_dict(self) -> dict[str, Any]:
        """Everything but the traces, which are named, as plain lists, numbers and strings, ready for JSON."""
        difference = self.prompt_difference()
        return {
            "summary": self.summary(),
            "caveat": self.caveat(),
            "traces": [identity(trace) for trace in self.traces],
            "sides": asdict(self.sides),
            "shared_tokens": self.shared_tokens,
            "pair_tokens": self.pair_tokens.tolist(),
            "hubs": [asdict(hub) | {"flow": hub.flow.to_dict()} for hub in self.hubs],
            "steps": [asdict(step) | {"flow": step.flow.to_dict()} for step in self.steps],
            "tree": [asdict(branch) for branch in self.tree],
            "parting": self.parting(),
            "prompt_throughput": self.prompt_throughput.tolist(),
            "prompt_difference": None if difference is None else difference.tolist(),
        }


def compare_group(traces: Sequence[Trace], *, hubs: int = 5) -> GroupComparison:
    """What several responses to one prompt share, where right and wrong ones part, and what flowed differently.

    Args:
        traces: At least two, right or wrong by their metadata: `is_correct`, or where none has it `reward` against the
            group's mean.
        hubs: How many hubs of each are compared.

    Raises:
        InputError: Fewer than two traces, or traces of different prompts.
    """
    if len(traces) < 2:
        raise InputError(f"expected at least two traces to compare, got {len(traces)}")
    size = len(traces)
    pairs = np.diag([len(trace) for trace in traces])
    for i, j in itertools.combinations(range(size), 2):
        pairs[i, j] = pairs[j, i] = shared_prefix(traces[i], traces[j])
    refuse_strangers(traces, pairs[0])
    prompt = traces[0].response.start
    sides = told_sides(traces)
    responses = [said_steps(trace) for trace in traces]
    return GroupComparison(
        traces=tuple(traces),
        sides=sides,
        shared_tokens=int(pairs.min()),
        pair_tokens=pairs,
        hubs=_group_hubs(traces, hubs, sides),
        steps=shared_steps(responses, sides),
        tree=branches(responses, sides),
        prompt_throughput=np.stack([trace.throughput[:prompt] for trace in traces]),
    )


def _group_hubs(traces: Sequence[Trace], n: int, sides: Sides) -> tuple[GroupHub, ...]:
    members: dict[tuple[str, str], list[int]] = {}
    words: list[dict[str, float]] = []
    for index, trace in enumerate(traces):
        reading = UnitFlow(trace, "words")
        ranked = reading.hubs(len(reading.units), by="flow", prompt=False)
        words.append({hub.label: hub.flow for hub in reversed(ranked)})  # the largest is written last
        for name in dict.fromkeys((hub.label, hub.kind) for hub in ranked[:n]):
            members.setdefault(name, []).append(index)
    found = [
        GroupHub(
            label=label,
            kind=kind,
            members=tuple(having),
            right=sides.count("right", having),
            wrong=sides.count("wrong", having),
            flow=flow_by_side({index: said[label] for index, said in enumerate(words) if label in said}, sides),
        )
        for (label, kind), having in members.items()
    ]
    return tuple(sorted(found, key=lambda hub: (-len(hub.members), -hub.flow.all, hub.label, hub.kind)))
