"""What a benchmark is: where its problems are, how they are asked, and by which rule a response is graded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowtracer.tasks import Problem

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""As Qwen2.5-Math asks, and most evaluations after it."""

LETTER = r"Please reason step by step, and put the letter of your choice within \boxed{}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Problems of a public data set."""

    hub: str
    """Id of the data set on the Hugging Face hub."""
    config: str | None = None
    split: str
    rule: str
    """Name of the rule of grading, in `flowtracer.evaluation.grading.RULES`."""
    instruction: str = BOXED
    """Follows the question."""
    drawn: int | None = None
    """So many of a large set: those whose questions have the smallest SHA-256, whatever the order of the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A problem as a record states it."""

    text: str
    gold: str
    options: Mapping[str, str]
    """Texts of the choices by letter, or none."""
    tolerance: float | None
    """How far a numeric answer may be off."""
    source: str
    """The record's own id, or its number."""

    @property
    def digest(self) -> str:
        """What makes two questions the same: their statement."""
        return hashlib.sha256(self.statement.encode()).hexdigest()

    @property
    def statement(self) -> str:
        """The question with its choices, one a line."""
        return "\n".join([self.text, *(f"{letter}. {text}" for letter, text in self.options.items())])

    def pose(self, benchmark: str, rule: str, instruction: str) -> Problem:
        """The problem that a model gets."""
        return Problem(
            id=f"{benchmark}/{self.digest[:16]}",
            key=self.statement,
            prompt=[{"role": "user", "content": f"{self.statement}\n\n{instruction}".strip()}],
            gold=self.gold,
            facts={
                "rule": rule,
                "options": dict(self.options),
                "tolerance": self.tolerance,
                "source": self.source,
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a response is worth."""

    correct: bool
    reason: str
    """"correct", or in one word why not."""
    answer: str | None = None
    """What was taken for the final answer."""
    found: str | None = None
    """By which mark it was found: boxed, answer_tag, hashes, answer_is, label, pattern, or last_number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A response with what it takes to grade it; JSON can hold it."""

    rule: str
    gold: str
    response: str
    finished: bool = True
    """The response ended by itself."""
    options: Mapping[str, str] | None = None
    tolerance: float | None = None
    pattern: str | None = None
    """How the response states its answer, where not in one of the usual ways."""

    @classmethod
    def to(cls, problem: Problem, response: str, *, finished: bool, pattern: str | None = None) -> Answered:
        """A response to a posed question."""
        facts: Mapping[str, Any] = problem.facts
        return cls(
            rule=facts["rule"],
            gold=problem.gold,
            response=response,
            finished=finished,
            options=facts["options"],
            tolerance=facts["tolerance"],
            pattern=pattern,
        )


def lettered(texts: Sequence[str]) -> dict[str, str]:
    """Choices by their letters, from A on."""
    return {chr(ord("A") + place): text for place, text in enumerate(texts)}
