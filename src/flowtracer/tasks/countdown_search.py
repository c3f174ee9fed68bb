"""Countdown as a search: a teacher that tries, fails, goes on, and says which line is the answer.

    3+5=8, 8*7=56, no
    7*3=21, 21+5=26, yes
    <answer>7*3+5</answer>

1. A line is an attempt: the given numbers in some order, combined from left to right, then whether the target is
   reached. Values between are whole numbers from 0 to `LARGEST`.
2. A response is a few dead ends, no two alike, then the solution's line, then the solution as one expression. The
   line that is declared to be the solution is needed, dead ends are not.
3. `Flaws` makes the teacher err on purpose, in ways that a reward can mend, so that a model trained on it has
   something to learn by reinforcement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from random import Random

from flowtracer.tasks.worked import Worked, compose

LARGEST = 250  # of a value within an attempt: numbers that a small tokenizer has one token for

# Draws for one attempt before the search makes do with fewer dead ends: some numbers combine in few ways.
_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """How the teacher errs; all zero for a perfect one."""

    give_up: float = 0.0
    """Chance after the n-th dead end, divided by n, to stop and answer with the attempt that came closest."""
    false_yes: float = 0.0
    """Chance to declare a dead end to be the solution when it misses the target by at most `near`."""
    near: int = 2
    reuse: float = 0.0
    """Chance that a dead end takes one number twice and leaves another out; such an end may look like a solution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Numbers combined from left to right."""

    equations: tuple[str, ...]
    expression: str
    value: int


def draw_attempt(numbers: Sequence[int], rng: Random) -> Attempt:
    """A random attempt over all the numbers, in random order."""
    while True:
        order = rng.sample(list(numbers), len(numbers))
        attempt = _combine(order, rng.choices("+-*/", k=len(numbers) - 1))
        if attempt is not None:
            return attempt


def solutions(numbers: Sequence[int], target: int) -> list[Attempt]:
    """All attempts that reach the target, over all the numbers; none where every way leaves the range between."""
    orders = sorted(set(permutations(numbers)))
    attempts = (
        _combine(order, operations) for order in orders for operations in product("+-*/", repeat=len(numbers) - 1)
    )
    return [attempt for attempt in attempts if attempt is not None and attempt.value == target]


def search(
    numbers: Sequence[int],
    target: int,
    solution: Attempt,
    rng: Random,
    *,
    dead_ends: int,
    aim: int = 1,
    flaws: Flaws | None = None,
) -> Worked:
    """A response to numbers and target.

    Args:
        numbers: What is given.
        target: What is to be reached.
        solution: An attempt that reaches it.
        rng: What the response is drawn from.
        dead_ends: 0 to so many failed attempts stand before the solution, equally likely.
        aim: Each dead end is the closest to the target of so many that were drawn: 1 for one that tries at random,
            more for one that knows where it wants to go.
        flaws: How the teacher errs; None for a perfect one.
    """
    flaws = flaws or Flaws()
    tried: list[Attempt] = []
    for _ in range(rng.randint(0, dead_ends)):
        attempt = _dead_end(numbers, target, tried, rng, aim=aim, flaws=flaws)
        if attempt is None:
            break
        tried.append(attempt)
        if attempt.value == target or (abs(attempt.value - target) <= flaws.near and rng.random() < flaws.false_yes):
            return _response(tried[:-1], attempt)
        if rng.random() < flaws.give_up * len(tried):
            closest = min(tried, key=lambda attempt: abs(attempt.value - target))
            return _response(tried, closest, declared=False)
    return _response(tried, solution)


def _response(failed: list[Attempt], answer: Attempt, *, declared: bool = True) -> Worked:
    """The dead ends, then the attempt that is the answer: declared to be the solution, or all that there is."""
    lines = [(f"{', '.join(attempt.equations)}, no\n", False) for attempt in failed]
    if declared:
        lines.append((f"{', '.join(answer.equations)}, yes\n", True))
    surrender = "" if declared else "give up\n"
    return compose(lines, f"{surrender}<answer>{answer.expression}</answer>")


def _dead_end(
    numbers: Sequence[int], target: int, tried: list[Attempt], rng: Random, *, aim: int, flaws: Flaws
) -> Attempt | None:
    """The closest to the target of `aim` attempts that are new and miss it, unless a number is used twice."""
    taken = list(numbers)
    reuse = rng.random() < flaws.reuse
    if reuse:
        twice, dropped = rng.sample(range(len(taken)), 2)
        taken[dropped] = taken[twice]
    drawn = (draw_attempt(taken, rng) for _ in range(_TRIES))
    new = (attempt for attempt in drawn if attempt not in tried and (reuse or attempt.value != target))
    return min(islice(new, aim), key=lambda attempt: abs(attempt.value - target), default=None)


def _combine(numbers: Sequence[int], operations: Sequence[str]) -> Attempt | None:
    """The numbers from left to right under these operations; None if a value leaves its range."""
    value, expression, last = numbers[0], str(numbers[0]), ""
    equations = []
    for number, operation in zip(numbers[1:], operations, strict=True):
        result = _apply(value, operation, number)
        if result is None:
            return None
        if operation in "*/" and last in ("+", "-"):
            expression = f"({expression})"
        expression += f"{operation}{number}"
        equations.append(f"{value}{operation}{number}={result}")
        value, last = result, operation
    return Attempt(equations=tuple(equations), expression=expression, value=value)


def _apply(value: int, operation: str, number: int) -> int | None:
    if operation == "/":
        return value // number if number and value % number == 0 else None
    result = {"+": value + number, "-": value - number, "*": value * number}[operation]
    return result if 0 <= result <= LARGEST else None
