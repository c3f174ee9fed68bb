"""Responses whose truth is known by construction: which of their steps the answer depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flowtracer.tasks.base import Problem, Task
from flowtracer.text.span import CharSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkedStep:
    """One step of a worked response."""

    span: CharSpan  # its characters in the response, up to and with its line break
    needed: bool  # the answer depends on it; else it is a distractor or a dead end


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A response written by a program that knows the problem's structure."""

    text: str
    steps: tuple[WorkedStep, ...]  # the labelled ones, in order; what concludes the response is in none


@runtime_checkable
class WorkedTask(Task, Protocol):
    """A task that can also write responses, for supervised training and as ground truth."""

    def work(self, problem: Problem, *, seed: int = 0) -> Worked:
        """A response to the problem, drawn from `seed`."""
        ...


@runtime_checkable
class LabelledTask(Task, Protocol):
    """A task that knows of any response, a model's own too, which of its steps the right answer needs."""

    def label(self, problem: Problem, response: str) -> tuple[WorkedStep, ...]:
        """The steps of the response that are needed or distract, in order; what is in none is neither."""
        ...


def compose(lines: Iterable[tuple[str, bool]], conclusion: str) -> Worked:
    """A worked response out of (line, needed) pairs and what follows them."""
    text = ""
    steps = []
    for line, needed in lines:
        steps.append(WorkedStep(span=CharSpan(start=len(text), stop=len(text) + len(line)), needed=needed))
        text += line
    return Worked(text=text + conclusion, steps=tuple(steps))
