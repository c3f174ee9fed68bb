"""Planted: chains of assignments, of which the answer needs exactly one, known by construction.

    k=7; b=a+3; a=2; m=k-1; n=m-4; c=b+4. c is ?

1. Each of `chains` chains gives a value to its first variable and derives `length` - 1 more by adding or
   subtracting a number from 1 to 9; every value is a digit. All variables of a problem have different names.
2. The prompt shuffles all assignments and asks for the last variable of one chain.
3. `work` writes every chain step by step, interleaved at random, then the answer:

       k=7, k is 7.
       a=2, a is 2.
       m=k-1, k is 7, m is 6.
       ...
       <answer>9</answer>

   The steps of the chain that was asked for are needed, all others are distractors. Nothing restates the answer, so
   what predicts it has to look it up among the steps.

The chains are drawn alike and the one that is asked for is drawn last, so position, length and form of a step say
nothing about whether it is needed. Two problems are the same when they have the same chains and ask for the same
one, whatever the names and the order.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar, TypedDict

from flowtracer.errors import InputError
from flowtracer.tasks.base import Problem, Reason, Verdict, final_answer, pose, take
from flowtracer.tasks.worked import Worked, WorkedStep, compose
from flowtracer.text.span import CharSpan

LARGEST = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Follow one of `chains` chains of `length` assignments."""

    name: ClassVar[str] = "planted"

    chains: int = 2
    length: int = 3

    def __post_init__(self) -> None:
        if self.chains < 2 or self.length < 2:
            raise InputError(f"expected chains >= 2 and length >= 2, got {self.chains} and {self.length}")
        if self.chains * self.length > len(string.ascii_lowercase):
            raise InputError(
                f"expected chains * length <= {len(string.ascii_lowercase)}, a letter for each variable, "
                f"got {self.chains} * {self.length}"
            )

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        return take(self._draws(seed), split, n)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        return verify_value(problem, response)

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        return near_misses(int(problem.gold))

    def work(self, problem: Problem, *, seed: int = 0) -> Worked:
        """All chains, interleaved at random, then the answer."""
        rng = Random(f"{problem.id} {seed}")  # noqa: S311 - not for security
        chains: list[list[Link]] = problem.facts["chains"]
        order = [chain for chain, links in enumerate(chains) for _ in links]
        rng.shuffle(order)
        rest = [iter(links) for links in chains]
        lines = [(derivation(next(rest[chain])), chain == problem.facts["asked"]) for chain in order]
        return compose(lines, f"<answer>{problem.gold}</answer>")

    def label(self, problem: Problem, response: str) -> tuple[WorkedStep, ...]:
        """Each line that gives a value to a variable of some chain: needed if that chain was asked for."""
        chains: list[list[Link]] = problem.facts["chains"]
        needed = {link["variable"]: chain == problem.facts["asked"] for chain, of in enumerate(chains) for link in of}
        return tuple(
            WorkedStep(span=CharSpan(start=line.start(), stop=line.end()), needed=needed[line[1]])
            for line in re.finditer(r"^([a-z])=[^\n]*\n?", response, re.MULTILINE)
            if line[1] in needed
        )

    def _draws(self, seed: int) -> Iterator[Problem]:
        rng = Random(f"{self.name} {self.chains} {self.length} {seed}")  # noqa: S311
        while True:
            yield self.draw(rng)

    def draw(self, rng: Random) -> Problem:
        """One problem, of whatever split."""
        names = rng.sample(string.ascii_lowercase, self.chains * self.length)
        chains = [draw_chain(rng, names[first : first + self.length]) for first in range(0, len(names), self.length)]
        asked = rng.randrange(self.chains)
        goal = chains[asked][-1]
        statements = [definition(link) for links in chains for link in links]
        rng.shuffle(statements)
        forms = [[link["change"] for link in links] for links in chains]
        return pose(
            self.name,
            key=f"{forms[asked]} of {sorted(forms)}",
            question=f"{'; '.join(statements)}. {goal['variable']} is ?",
            gold=str(goal["value"]),
            facts={"chains": chains, "asked": asked, "variable": goal["variable"]},
        )


class Link(TypedDict):
    """One assignment of a chain."""

    variable: str
    source: str  # the variable that it derives from; empty for the first of a chain
    change: int  # what is added to the source; for the first of a chain, its value
    value: int


def verify_value(problem: Problem, response: str) -> Verdict:
    """Judge a response whose answer is a number without a sign."""
    answer = final_answer(response)
    if isinstance(answer, Reason):
        return Verdict(reason=answer)
    if not (answer.isascii() and answer.isdigit()):
        return Verdict(reason=Reason.NOT_A_NUMBER)
    return Verdict(reason=Reason.CORRECT if answer == problem.gold else Reason.WRONG_VALUE)


def near_misses(value: int) -> list[str]:
    """Answers that `verify_value` must refuse where `value` is right."""
    return [str(value + 1), str((value + 5) % 10), f"{value} {value}", f"-{value + 1}", f"{value}.5"]


def draw_chain(rng: Random, names: list[str]) -> list[Link]:
    """A chain over these variables whose values are digits."""
    start = rng.randint(0, LARGEST)
    links = [Link(variable=names[0], source="", change=start, value=start)]
    for name in names[1:]:
        last = links[-1]
        value = rng.choice([digit for digit in range(LARGEST + 1) if digit != last["value"]])
        links.append(Link(variable=name, source=last["variable"], change=value - last["value"], value=value))
    return links


def definition(link: Link) -> str:
    """An assignment as the prompt has it."""
    change = f"{link['change']:+d}" if link["source"] else str(link["change"])
    return f"{link['variable']}={link['source']}{change}"


def derivation(link: Link) -> str:
    """An assignment worked out, as a line of a response."""
    given = f"{link['source']} is {link['value'] - link['change']}, " if link["source"] else ""
    return f"{definition(link)}, {given}{link['variable']} is {link['value']}.\n"
