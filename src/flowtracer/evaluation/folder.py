"""Responses to benchmarks, graded, in one folder; resumable.

    out/options.json           what the folder was made with; a later run must agree
    out/<benchmark>.jsonl      one line a response, as soon as its batch is graded
    out/<benchmark>.skipped.jsonl   records that are no problem, and why
    out/summary.json           avg@k and pass@k with intervals

A response depends on its problem, its number and the seed, so a run that was killed goes on to the same result, and
more problems or samples add lines and change none. A line's key is a digest of the problem, of the response's number
(of the response itself where it was made elsewhere), of the options and of the model. Lines whose keys are asked for
count, in whatever order; others stay and do not. A line is a rollout too: `flowtracer trace` and `mask` read it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError
from flowtracer.evaluation.base import Answered, Grade
from flowtracer.evaluation.loading import Suite
from flowtracer.evaluation.pool import GradingPool
from flowtracer.evaluation.summary import BenchmarkResult, summarise
from flowtracer.folders import LineFile, as_lines, claim, digest, write_atomically
from flowtracer.model.generate import Reply, Sampling, draw_name, sample
from flowtracer.tasks import Problem, Task
from flowtracer.text.answer import Answer, check_pattern, locate_answer
from flowtracer.trace.records import safe_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One response that is asked for."""

    problem: Problem
    number: int
    """Among those to its problem, from 0."""
    given: Reply | None = None
    """The response, where it was made elsewhere."""


Responder = Callable[[Sequence[Draw]], Iterator[Mapping[int, Reply]]]
"""Gives replies by the places of their draws, batch by batch."""


def by_model(model: Any, tokenizer: Any, sampling: Sampling, *, batch_size: int) -> Responder:
    """Replies that a model samples."""

    def responder(draws: Sequence[Draw]) -> Iterator[Mapping[int, Reply]]:
        prompts = [draw.problem.prompt for draw in draws]
        names = [draw_name(draw.problem.id, draw.number) for draw in draws]
        return sample(model, tokenizer, prompts, names, sampling=sampling, batch_size=batch_size)

    return responder


class EvaluationFolder:
    """A folder of graded responses.

    Args:
        path: Made if it does not exist.
        options: What the responses depend on; must be what an earlier run in this folder was given.
        model: What tells the model from another of the same name, such as `model_digest`.
        answer_pattern: How responses state their answer, where not in one of the usual ways: a regular expression whose
            first group is the answer. Tasks find answers by their own verifiers, and refuse one.

    Raises:
        InputError: A pattern that is none, or the folder cannot be written, or holds responses of other options.
        FormatError: What it was made with cannot be read.
    """

    def __init__(
        self, path: Path, options: Mapping[str, Any], *, model: str = "", answer_pattern: str | None = None
    ) -> None:
        check_pattern(answer_pattern)
        self.path = path
        self._pattern = answer_pattern
        # Folders of before there was a choice say nothing of it.
        options = {**options, "answer_pattern": answer_pattern} if answer_pattern is not None else options
        claim(path, options)
        self._options = digest(options, model)

    def run(self, suite: Suite, respond: Responder, pool: GradingPool, *, draws: Iterable[Draw]) -> Iterator[int]:
        """Answer and grade what the folder does not hold yet; yields how many responses stand on disk, held ones first.

        Args:
            suite: Whose problems are answered.
            respond: Gives the responses.
            pool: Grades them.
            draws: The responses wanted.

        Raises:
            InputError: A task, beside a pattern.
            FormatError: A line of an earlier run that cannot be read, or two of one response.
        """
        refuse_pattern(suite, self._pattern)
        file = LineFile(self._file(suite.name))
        held = file.by("key")
        asked = self._keyed(draws)
        waiting = [(key, draw) for key, draw in asked if key not in held]
        skipped = as_lines(map(asdict, suite.skipped))
        write_atomically(self.path / f"{safe_name(suite.name)}.skipped.jsonl", skipped)
        yield len(asked) - len(waiting)
        for batch in respond([draw for _, draw in waiting]) if waiting else ():
            keys = [waiting[place][0] for place in batch]
            answered = [(waiting[place][1], reply) for place, reply in batch.items()]
            grades = _grade(suite.task, answered, pool, self._pattern)
            file.add(
                {"key": key, **_line(suite, draw, reply, grade)}
                for key, (draw, reply), grade in zip(keys, answered, grades, strict=True)
            )
            yield len(answered)

    def result(
        self, suite: Suite, draws: Iterable[Draw], labels: Mapping[tuple[str, int], bool] | None = None
    ) -> BenchmarkResult:
        """What the folder says about these responses."""
        lines, known = LineFile(self._file(suite.name)).by("key"), labels or {}
        wanted = [
            {**lines[key], "label": known.get((draw.problem.id, draw.number))}
            for key, draw in self._keyed(draws)
            if key in lines
        ]
        return summarise(suite.name, wanted, [item.reason for item in suite.skipped])

    def write_summary(self, results: Sequence[BenchmarkResult]) -> None:
        """Write the table as data."""
        content = [asdict(result) for result in results]
        write_atomically(self.path / "summary.json", json.dumps(content, indent=2) + "\n")

    def _keyed(self, draws: Iterable[Draw]) -> list[tuple[str, Draw]]:
        """Draws with their keys; equal responses made elsewhere are told apart by counting."""
        seen: Counter[str] = Counter()
        keyed = []
        for draw in draws:
            problem = draw.problem
            facts = {name: value for name, value in problem.facts.items() if name != "source"}  # a place in a file
            says = draw.number if draw.given is None else asdict(draw.given)
            key = digest(self._options, problem.id, problem.prompt, problem.gold, facts, says)
            keyed.append((digest(key, seen[key]), draw))
            seen[key] += 1
        return keyed

    def _file(self, suite: str) -> Path:
        return self.path / f"{safe_name(suite)}.jsonl"


def draws_of(suite: Suite, samples: int) -> list[Draw]:
    """So many responses to each problem, a whole round over the problems before the next."""
    return [Draw(problem=problem, number=number) for number in range(samples) for problem in suite.problems]


def refuse_pattern(suite: Suite, pattern: str | None) -> None:
    """Raise where a task is to find answers by another way than its verifier's, which is the reward of its training.

    Raises:
        InputError: A task, beside a pattern.
    """
    if suite.task is not None and pattern is not None:
        raise InputError(
            f"expected answer_pattern beside benchmarks and files of problems, got it beside the task {suite.name!r}, "
            "whose verifier finds answers by itself; leave it out"
        )


def _grade(
    task: Task | None, answered: Sequence[tuple[Draw, Reply]], pool: GradingPool, pattern: str | None
) -> list[Grade]:
    if task is None:
        return pool.grade(
            [
                Answered.to(draw.problem, reply.text, finished=reply.finished, pattern=pattern)
                for draw, reply in answered
            ]
        )
    return [_by_task(task, draw.problem, reply.text) for draw, reply in answered]


def _by_task(task: Task, problem: Problem, response: str) -> Grade:
    """A verifier of a task is linear in the response: it needs no process of its own."""
    verdict, located = task.verify(problem, response), locate_answer(response)
    answer, found = (located.text, located.rule) if isinstance(located, Answer) else (None, None)
    return Grade(correct=verdict.correct, reason=str(verdict.reason), answer=answer, found=found)


def _line(suite: Suite, draw: Draw, reply: Reply, grade: Grade) -> dict[str, Any]:
    facts = draw.problem.facts if suite.task is None else {"rule": suite.task.name}
    return {
        "id": draw.problem.id,
        "sample": draw.number,
        "prompt": draw.problem.prompt,
        "response": reply.text,
        "gold": draw.problem.gold,
        "answer": grade.answer,
        "found": grade.found,
        "reason": grade.reason,
        "is_correct": grade.correct,
        "tokens": reply.tokens,
        "finished": reply.finished,
        **{name: facts[name] for name in ("rule", "options", "tolerance", "source") if facts.get(name)},
    }
