"""Forks: the answer hangs on a few tokens whose places are known, and differ from variant to variant.

    early: k=7; b=a+3; a=2; m=k-1. b is ?

1. Chains of assignments as in `planted`, whose last values differ. A response names the variable that it will answer
   for in a line of its own, the *fork*, works out all chains, and answers with the value of what it named:

       b is ?                       <- early
       k=7, k is 7.
       a=2, a is 2.
       ...                          <- middle
       m=k-1, k is 7, m is 6.
       b is ?                       <- late
       <answer>5</answer>

2. `place` says where the fork stands: "early" (a plan, then carried out at length), "middle", "late", or "scattered":
   two variables are asked for, and a fork for each stands anywhere among the lines.
3. The teacher's lines are true, fluent, and the same whatever was named: forced. Whether its response is right is
   decided at the forks alone. A model that copies badly decides elsewhere too, and the meter's `oracle` shows it.
4. The teacher errs on purpose (`work` with `slips=True`): the larger the number in a variable's definition, the more
   often it names the end of another chain instead. A model that was trained on it names the right one with a middling
   probability, which reinforcement can mend.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import ClassVar

from flowtracer.errors import InputError
from flowtracer.tasks.base import Problem, Reason, Verdict, final_answer, pose, take
from flowtracer.tasks.planted import Link, definition, derivation, draw_chain
from flowtracer.tasks.worked import Worked, WorkedStep, compose
from flowtracer.text.span import CharSpan

PLACES = ("early", "middle", "late", "scattered")

# Chance that the teacher names the right variable: the first number less the second for each unit in its definition.
SURE, DOUBT = 0.9, 0.08

_FORK = re.compile(r"^([a-z] is )\?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """Name what is asked for, at a known place, among the worked-out lines of all chains."""

    name: ClassVar[str] = "forks"

    place: str = "early"
    chains: int = 3
    length: int = 2

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise InputError(f"expected a place among {', '.join(PLACES)}, got {self.place!r}")
        if not 3 <= self.chains <= 9 or self.length < 2 or self.chains * self.length > len(string.ascii_lowercase):
            raise InputError(
                f"expected 3 to 9 chains and length >= 2, with at most {len(string.ascii_lowercase)} variables, "
                f"got {self.chains} and {self.length}"
            )

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        return take(self._draws(seed), split, n)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        answer = final_answer(response)
        if isinstance(answer, Reason):
            return Verdict(reason=answer)
        if re.fullmatch(r"[0-9](, [0-9])*", answer) is None:
            return Verdict(reason=Reason.NOT_A_NUMBER)
        return Verdict(reason=Reason.CORRECT if answer == problem.gold else Reason.WRONG_VALUE)

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        first, rest = problem.gold[0], problem.gold[1:]
        return [f"{(int(first) + 1) % 10}{rest}", f"{problem.gold}, {first}", f"-{problem.gold}", f"{problem.gold}.5"]

    def work(self, problem: Problem, *, seed: int = 0, slips: bool = False) -> Worked:
        """The forks among the lines of all chains, then the answer.

        Needed are the forks and the chains of what they name. With `slips`, forks may name the wrong variable, and the
        answer is then the wrong one.
        """
        rng = Random(f"{problem.id} {seed}")  # noqa: S311 - not for security
        chains: list[list[Link]] = problem.facts["chains"]
        asked: list[int] = problem.facts["asked"]
        named = [self._named(chains, wanted, rng) if slips else wanted for wanted in asked]
        order = [number for number, links in enumerate(chains) for _ in links]
        rng.shuffle(order)
        rest = [iter(links) for links in chains]
        lines = [(derivation(next(rest[number])), number in named) for number in order]
        gaps = self._gaps(len(lines), len(asked), rng)
        for gap, number in sorted(zip(gaps, named, strict=True), key=lambda fork: fork[0], reverse=True):
            lines.insert(gap, (f"{chains[number][-1]['variable']} is ?\n", True))
        answer = ", ".join(str(chains[number][-1]["value"]) for number in named)
        return compose(lines, f"<answer>{answer}</answer>")

    def decisive(self, problem: Problem, response: str) -> list[CharSpan]:
        """Where a response, right or wrong, names what it answers for: the characters that decide."""
        forks = [match.span(1) for match in _FORK.finditer(response)]
        return [CharSpan(start=start, stop=stop) for start, stop in forks[: len(problem.facts["asked"])]]

    def label(self, problem: Problem, response: str) -> tuple[WorkedStep, ...]:
        """The forks are needed; all else, which is forced whatever they name, distracts."""
        steps, place = [], 0
        for fork in self.decisive(problem, response):
            steps += [WorkedStep(span=CharSpan(start=place, stop=fork.start), needed=False)] * (place < fork.start)
            steps.append(WorkedStep(span=fork, needed=True))
            place = fork.stop
        return (*steps, WorkedStep(span=CharSpan(start=place, stop=len(response)), needed=False))

    def draw(self, rng: Random) -> Problem:
        """One problem, of whatever split."""
        names = rng.sample(string.ascii_lowercase, self.chains * self.length)
        firsts = range(0, len(names), self.length)
        while True:
            chains = [draw_chain(rng, names[first : first + self.length]) for first in firsts]
            if len({links[-1]["value"] for links in chains}) == self.chains:  # no wrong fork is right by chance
                break
        asked = rng.sample(range(self.chains), 2 if self.place == "scattered" else 1)
        statements = [definition(link) for link in chain.from_iterable(chains)]
        rng.shuffle(statements)
        goals = ", ".join(f"{chains[number][-1]['variable']} is ?" for number in asked)
        forms = [[link["change"] for link in links] for links in chains]
        return pose(
            self.name,
            key=f"{self.place} {[forms[number] for number in asked]} of {sorted(forms)}",
            question=f"{self.place}: {'; '.join(statements)}. {goals}",
            gold=", ".join(str(chains[number][-1]["value"]) for number in asked),
            facts={"chains": chains, "asked": asked},
        )

    def _draws(self, seed: int) -> Iterator[Problem]:
        rng = Random(f"{self.name} {self.place} {self.chains} {self.length} {seed}")  # noqa: S311
        while True:
            yield self.draw(rng)

    def _named(self, chains: Sequence[Sequence[Link]], wanted: int, rng: Random) -> int:
        """The chain whose end the teacher names."""
        if rng.random() < SURE - DOUBT * abs(chains[wanted][-1]["change"]):
            return wanted
        return rng.choice([number for number in range(len(chains)) if number != wanted])

    def _gaps(self, lines: int, forks: int, rng: Random) -> list[int]:
        """Before which lines the forks stand, in their order."""
        if self.place == "scattered":
            return sorted(rng.sample(range(lines), forks))
        return [{"early": 0, "middle": lines // 2, "late": lines}[self.place]]
