"""Forks: the answer hangs on a few tokens whose places are known, and differ from variant to variant.

    k=7; b=+3, c=-4; w=*; d=+1; e=-2. c=?

1. A walk from statement to statement: the first gives a value, each of the next changes the one reached. Where two or
   more stand side by side, the *fork*, the walk takes the one that the question ends with. A star is an *aside*: any
   digit will do, and nothing follows from it.
2. A response carries out one statement a line and answers with the last value reached:

       k=7, k is 7.
       c=7-4, c is 3.          <- the fork: c, not b
       w=8, w is 8.            <- an aside
       d=3+1, d is 4.
       e=4-2, e is 2.
       <answer>2</answer>

3. `place` says where the fork stands: "early" (a choice, then carried out at length), "middle", "late", or "scattered":
   two forks anywhere among the lines. Position alone therefore says nothing over all of them.
4. Whether a response is right is decided where it names the variable of a fork: every line is true and fluent whatever
   was named, and each way leads to another value. A model that copies or reckons badly decides elsewhere too, and the
   meter's `oracle` shows it.
5. Asides are where a model is least sure and nothing depends on it, so that being unsure does not tell what decides.
   With `free=False` they are given, as in "w=5": then all but the forks is forced, forced tokens hardly move whatever
   they are credited with, and credit has little to gain.
6. The teacher errs on purpose (`work` with `slips=True`): the larger the number of the way that was asked for, the more
   often it takes another. A model that was trained on it takes the right one with a middling probability, which
   reinforcement can mend.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar, TypedDict

from flowtracer.errors import InputError
from flowtracer.tasks.base import Problem, Verdict, pose, take
from flowtracer.tasks.planted import LARGEST, near_misses, verify_value
from flowtracer.tasks.worked import Worked, WorkedStep, compose
from flowtracer.text.span import CharSpan

PLACES = ("early", "middle", "late", "scattered")

# Chance that the teacher takes the right way: the first number less the second for each unit of its change.
SURE, DOUBT = 0.9, 0.08

_NAMED = re.compile(r"^([a-z])=", re.MULTILINE)


class Way(TypedDict):
    """A variable, and what it adds to the value reached; of the start and a given aside, its value."""

    variable: str
    change: int


class Statement(TypedDict):
    """What may be done next: one way, or at a fork several."""

    ways: list[Way]
    aside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """Take the way that is asked for, at a known place, among forced statements and asides."""

    name: ClassVar[str] = "forks"

    place: str = "early"
    ways: int = 2
    """Of a fork."""
    steps: int = 4
    """Forced statements."""
    asides: int = 2
    free: bool = True
    """What an aside says is the response's own choice."""

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise InputError(f"expected a place among {', '.join(PLACES)}, got {self.place!r}")
        if not 2 <= self.ways <= 4 or self.steps < 1 or self.asides < 0:
            raise InputError(
                "expected 2 to 4 ways, steps >= 1 and asides >= 0, "
                f"got ways={self.ways}, steps={self.steps}, asides={self.asides}"
            )
        variables = 1 + self.steps + self.asides + self.forks * self.ways
        if variables > len(string.ascii_lowercase):
            raise InputError(
                f"expected at most {len(string.ascii_lowercase)} variables, got {variables}: fewer steps or asides"
            )

    @property
    def forks(self) -> int:
        """How many a problem has."""
        return 2 if self.place == "scattered" else 1

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        return take(self._draws(seed), split, n)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        return verify_value(problem, response)

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        return near_misses(int(problem.gold))

    def work(self, problem: Problem, *, seed: int = 0, slips: bool = False) -> Worked:
        """One statement a line, then the answer; all but the asides are needed.

        With `slips`, forks may be taken wrongly, and the answer is then the wrong one.
        """
        rng = Random(f"{problem.id} {seed}")  # noqa: S311 - not for security
        start: Way = problem.facts["start"]
        value, lines = start["change"], [(_given(start), True)]
        for statement in problem.facts["statements"]:
            way = _taken(statement["ways"], problem.facts["asked"], rng if slips else None)
            if statement["aside"]:
                said = Way(variable=way["variable"], change=rng.randint(0, LARGEST)) if self.free else way
                lines.append((_given(said), False))
            else:
                name, change = way["variable"], way["change"]
                lines.append((f"{name}={value}{change:+d}, {name} is {value + change}.\n", True))
                value += change
        return compose(lines, f"<answer>{value}</answer>")

    def decisive(self, problem: Problem, response: str) -> list[CharSpan]:
        """Where a response, right or wrong, first names its way at each fork: the characters that decide."""
        fork_of = {
            way["variable"]: number
            for number, statement in enumerate(problem.facts["statements"])
            if len(statement["ways"]) > 1
            for way in statement["ways"]
        }
        spans: dict[int, CharSpan] = {}
        for named in _NAMED.finditer(response):
            if named[1] in fork_of:
                spans.setdefault(fork_of[named[1]], CharSpan(start=named.start(), stop=named.end()))
        return list(spans.values())

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
        while (walk := self._walk(rng)) is None:
            pass
        start, changes, aside = walk
        names = iter(rng.sample(string.ascii_lowercase, 1 + sum(map(len, changes))))
        first = Way(variable=next(names), change=start)
        statements = [
            Statement(ways=[Way(variable=next(names), change=change) for change in of], aside=is_aside)
            for of, is_aside in zip(changes, aside, strict=True)
        ]
        taken = [rng.randrange(len(of)) for of in changes]
        asked = [s["ways"][way]["variable"] for s, way in zip(statements, taken, strict=True) if len(s["ways"]) > 1]
        value = start + sum(of[way] for of, way, skip in zip(changes, taken, aside, strict=True) if not skip)
        shown = [f"{first['variable']}={start}", *(_shown(statement, free=self.free) for statement in statements)]
        return pose(
            self.name,
            key=f"{start} {changes} {aside} by {taken}",
            question=f"{'; '.join(shown)}. {', '.join(f'{name}=' for name in asked)}?",
            gold=str(value),
            facts={"start": first, "statements": statements, "asked": asked},
        )

    def _draws(self, seed: int) -> Iterator[Problem]:
        options = f"{self.place} {self.ways} {self.steps} {self.asides}{' free' if self.free else ''}"
        rng = Random(f"{self.name} {options} {seed}")  # noqa: S311 - not for security
        while True:
            yield self.draw(rng)

    def _walk(self, rng: Random) -> tuple[int, list[list[int]], list[bool]] | None:
        """A start, the changes of each statement's ways, and which are asides; None if this draw leads nowhere.

        Whatever is taken, every value is a digit, and the ways lead to different ones.
        """
        kinds = ["step"] * self.steps + ["aside"] * self.asides
        rng.shuffle(kinds)
        for gap in sorted(self._gaps(len(kinds), rng), reverse=True):
            kinds.insert(gap, "fork")
        start = rng.randint(0, LARGEST)
        reached, changes = [start], []
        for kind in kinds:
            if kind == "aside":
                changes.append([0 if self.free else rng.randint(0, LARGEST)])
                continue
            free = [change for change in range(-min(reached), LARGEST - max(reached) + 1) if change]
            ways = self.ways if kind == "fork" else 1
            if len(free) < ways:
                return None
            changes.append(rng.sample(free, ways))
            reached = [value + change for value in reached for change in changes[-1]]
            if len(set(reached)) < len(reached):
                return None
        return start, changes, [kind == "aside" for kind in kinds]

    def _gaps(self, lines: int, rng: Random) -> list[int]:
        """Before which statements the forks stand."""
        if self.place == "scattered":
            return rng.sample(range(lines + 1), self.forks)
        return [{"early": 0, "middle": lines // 2, "late": lines}[self.place]]


def _taken(ways: list[Way], asked: list[str], slips: Random | None) -> Way:
    """The way that the teacher takes."""
    if len(ways) == 1:
        return ways[0]
    (wanted,) = [way for way in ways if way["variable"] in asked]
    if slips is None or slips.random() < SURE - DOUBT * abs(wanted["change"]):
        return wanted
    return slips.choice([way for way in ways if way is not wanted])


def _shown(statement: Statement, *, free: bool) -> str:
    """A statement as the question has it."""
    if statement["aside"] and free:
        return f"{statement['ways'][0]['variable']}=*"
    sign = "" if statement["aside"] else "+"
    return ", ".join(f"{way['variable']}={way['change']:{sign}d}" for way in statement["ways"])


def _given(way: Way) -> str:
    """The line of a start or an aside."""
    return f"{way['variable']}={way['change']}, {way['variable']} is {way['change']}.\n"
