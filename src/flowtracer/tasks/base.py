"""What a task is: problems with one right answer, and a verifier that needs no model.

1. A task draws problems from an endless seeded stream; each has a `key`, what makes two problems the same.
2. The key, hashed, decides the split (`split_of`). So train, validation and test share no problem by
   construction, whatever the seeds and sizes; and within one list no key comes twice (`take`).
3. `verify` reads the final answer out of a response and gives a `Verdict`: right or not, for a named reason.
4. `reward` turns a verdict into a number; `validate` shows that gold answers pass and near misses do not.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any, ClassVar, Protocol, runtime_checkable

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.text.answer import Answer, locate_answer

# The hash modulo 4 picks one. A stream never ends, so a large train share buys nothing, while a tenth for the
# test would make every test problem cost ten draws.
SPLITS = ("train", "train", "validation", "test")

# Longest answer that a verifier reads: three times a Countdown solution over six numbers, spelled in LaTeX.
MAX_LENGTH = 500

# Draws in a row that bring nothing new before a stream counts as exhausted. One draw in four is for the test
# split, so if 2 % of its problems are still unseen, it gives up with probability (1 - 0.02 / 4)^2000 = 4e-5.
PATIENCE = 2000

# reasoning-gym seeds item i of a data set with seed + i. Seeds this far apart never meet.
_SEED_STRIDE = 1 << 32
_BLOCK = 1000


class Reason(str, Enum):
    """Why an answer is accepted or refused."""

    CORRECT = "correct"
    NO_ANSWER = "no_answer"
    TOO_LONG = "too_long"
    NOT_A_NUMBER = "not_a_number"
    NOT_ARITHMETIC = "not_arithmetic"
    DIVISION_BY_ZERO = "division_by_zero"
    FOREIGN_NUMBER = "foreign_number"
    NUMBER_REUSED = "number_reused"
    FALSE_EQUATION = "false_equation"
    WRONG_VALUE = "wrong_value"

    __str__ = str.__str__  # the bare value in messages and logs, on every Python


_UNREADABLE = frozenset({Reason.NO_ANSWER, Reason.TOO_LONG, Reason.NOT_A_NUMBER, Reason.NOT_ARITHMETIC})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem, ready for a trainer or an evaluation."""

    id: str  # "task/split/digest of the question": the same statement has the same id in every run
    key: str  # what makes two problems the same; decides the split
    prompt: list[dict[str, str]]  # chat messages
    gold: str  # an answer that the verifier accepts
    facts: Mapping[str, Any]  # what the verifier needs, JSON-able

    def row(self) -> dict[str, Any]:
        """The row of a training data set."""
        return {"prompt": self.prompt, "problem_id": self.id, "gold": self.gold}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a response is right, and why not."""

    reason: Reason

    @property
    def correct(self) -> bool:
        """The answer is right."""
        return self.reason is Reason.CORRECT

    @property
    def well_formed(self) -> bool:
        """The response gives an answer of the kind that the task asks for, right or wrong."""
        return self.reason not in _UNREADABLE


@runtime_checkable
class Task(Protocol):
    """What a task offers."""

    name: ClassVar[str]

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        ...

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        ...

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        ...


def split_of(key: str) -> str:
    """The split that a problem belongs to."""
    return SPLITS[int(_digest(key), 16) % len(SPLITS)]


def pose(
    task: str, *, key: str, question: str, gold: str, facts: Mapping[str, Any], form: str | None = None
) -> Problem:
    """A problem out of its parts; `form` names what the final answer is, such as "the expression".

    Without it the question stands alone, for a small model that knows the form of an answer from its training.
    """
    ask = f"\n\nThink step by step, then write {form} as your final answer inside <answer> and </answer>."
    return Problem(
        id=f"{task}/{split_of(key)}/{_digest(question)[:16]}",
        key=key,
        prompt=[{"role": "user", "content": question + (ask if form else "")}],
        gold=gold,
        facts=facts,
    )


def take(draws: Iterable[Problem | None], split: str, n: int) -> list[Problem]:
    """The first `n` problems of `split` with distinct keys; None is a draw that made no problem."""
    if split not in SPLITS:
        raise InputError(f"expected a split out of {sorted(set(SPLITS))}, got {split!r}")
    if n < 0:
        raise InputError(f"expected a number of problems >= 0, got {n}")
    found: dict[str, Problem] = {}
    idle = 0
    stream = iter(draws)
    while len(found) < n:
        problem = next(stream)
        if problem is not None and problem.key not in found and split_of(problem.key) == split:
            found[problem.key] = problem
            idle = 0
        elif (idle := idle + 1) > PATIENCE:
            raise InputError(
                f"expected {n} distinct {split} problems, got {len(found)} before {PATIENCE} draws in a row "
                "brought nothing new: ask for fewer, or widen the task's options"
            )
    return list(found.values())


def datasets(name: str, *, seed: int, **options: Any) -> Iterator[Any]:
    """Endless blocks of a reasoning-gym data set; the items of a block are generated when indexed."""
    try:
        from reasoning_gym import create_dataset
    except ImportError as error:
        raise MissingDependencyError(
            f'the task {name!r} draws its problems from reasoning-gym: pip install "flowtracer[train]"'
        ) from error
    for block in count():
        yield create_dataset(name, seed=seed * _SEED_STRIDE + block * _BLOCK, size=_BLOCK, **options)


def final_answer(response: str) -> str | Reason:
    """The text of the final answer, or why there is none to judge."""
    answer = locate_answer(response)
    if not isinstance(answer, Answer) or not answer.text.strip():
        return Reason.NO_ANSWER
    return answer.text.strip() if len(answer.text) <= MAX_LENGTH else Reason.TOO_LONG


def reward(verdict: Verdict, *, format_reward: float = 0.0) -> float:
    """1 for a correct answer, `format_reward` for a wrong one in the right form, else 0.

    A model that never solves a problem gets no signal from 0 and 1 alone. A small format reward, such as 0.1,
    gives it one, at the price of paying for wrong answers; it is off unless asked for.
    """
    if not 0 <= format_reward < 1:
        raise InputError(f"expected 0 <= format_reward < 1, the reward of a correct answer, got {format_reward}")
    if verdict.correct:
        return 1.0
    return format_reward if verdict.well_formed else 0.0


def validate(task: Task, *, n: int = 20, seed: int = 0) -> None:
    """Check on `n` problems of each split that the gold is accepted and wrong answers are refused."""
    for split in sorted(set(SPLITS)):
        for problem in task.problems(split, n, seed=seed):
            verdict = task.verify(problem, f"<answer>{problem.gold}</answer>")
            if not verdict.correct:
                raise InputError(f"{problem.id}: expected gold {problem.gold!r} to be accepted, got {verdict.reason}")
            for wrong in [
                "",
                "I do not know.",
                *(f"<answer>{text}</answer>" for text in task.wrong_answers(problem)),
            ]:
                if task.verify(problem, wrong).correct:
                    raise InputError(f"{problem.id}: expected the answer {wrong!r} to be refused, got it accepted")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
