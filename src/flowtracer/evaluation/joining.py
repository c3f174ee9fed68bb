"""Which problem of a benchmark a stored prompt asks, where it says so by its text alone.

1. White space counts as one space, whatever it is, and case counts.
2. The last message of a prompt is looked at. It asks the problem whose statement it is; else the one whose statement
   stands in it, as before an instruction or behind examples that were solved for the model, the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.evaluation.loading import load_suite
from flowtracer.tasks import Problem
from flowtracer.text.messages import as_messages

Join = Callable[[Any], Problem | None]
"""The problem that a prompt asks, with the prompt as its own; None where it asks none."""


def by_question(problems: Iterable[Problem]) -> Join:
    """A way from prompts to these problems."""
    known = {_folded(problem.key): problem for problem in problems}

    def join(prompt: Any) -> Problem | None:
        messages = as_messages(prompt)
        text = _folded(messages[-1]["content"]) if messages and isinstance(messages[-1].get("content"), str) else ""
        found = known.get(text) or _within(text, known)
        return None if found is None else replace(found, prompt=messages)

    return join


def joined_to(asked: str) -> Join:
    """A way from prompts to the problems that a word of the command line names.

    They are loaded when the first prompt is to be joined, since most files say the answers themselves; once, whether
    that succeeds or not. What it returns raises `InputError` or `MissingDependencyError` where it does not.
    """

    @cache
    def loaded() -> Join | InputError | MissingDependencyError:
        try:
            return by_question(load_suite(asked).problems)
        except (InputError, MissingDependencyError) as error:
            return error

    def join(prompt: Any) -> Problem | None:
        found = loaded()
        if isinstance(found, Exception):
            raise found
        return found(prompt)

    return join


def _within(text: str, known: dict[str, Problem]) -> Problem | None:
    """The problem whose statement ends last; of several that end there, the one with the longest."""
    places = [(start + len(said), len(said), said) for said in known if (start := text.rfind(said)) >= 0]
    return known[max(places)[2]] if places else None


def _folded(text: str) -> str:
    return " ".join(text.split())
