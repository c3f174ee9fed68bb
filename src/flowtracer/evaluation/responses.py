"""Responses that were made elsewhere, to be graded: any file of rollouts whose records say the right answer.

1. The gold answer is the record's gold, ground_truth or answer. A record without one is joined to a benchmark by its
   question, where there is a benchmark to join it to, and skipped where that fails.
2. Responses to one prompt are samples of one problem.
3. A label of the record (is_correct, correct, reward, score: true or false, 1 or 0) is kept beside our grade.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.evaluation.folder import Draw
from flowtracer.evaluation.grading import RULES, read_gold
from flowtracer.evaluation.joining import Join
from flowtracer.evaluation.loading import Suite
from flowtracer.model.generate import Reply
from flowtracer.tasks import Problem
from flowtracer.text.messages import as_messages
from flowtracer.trace.records import read_rollouts
from flowtracer.trace.trace import Rollout, Skipped

GOLD = ("gold", "ground_truth", "answer")
LABELS = ("is_correct", "correct", "reward", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """A file of responses."""

    suite: Suite
    draws: Sequence[Draw]
    labels: Mapping[tuple[str, int], bool]


def as_given(draws: Sequence[Draw], *, batch_size: int = 64) -> Iterator[Mapping[int, Reply]]:
    """A responder of what draws were given, some at a time so that grades are on disk soon."""
    given = [(place, draw.given) for place, draw in enumerate(draws) if draw.given is not None]
    for start in range(0, len(given), batch_size):
        yield dict(given[start : start + batch_size])


def load_responses(
    path: Path, *, name: str, rule: str | None = None, limit: int | None = None, join: Join | None = None
) -> Responses:
    """Responses of a file.

    Args:
        path: JSONL, JSON or Parquet, of any schema that `flowtracer trace` reads.
        name: Of the suite.
        rule: Of grading; else each record's own, else "math".
        limit: Only the first so many responses.
        join: Finds the problem of a prompt, for records without a gold answer; such as `by_question` makes.

    Raises:
        InputError: No such file, or not one response with a gold answer.
        FormatError: A file that is not what its name says.
    """
    problems: dict[str, Problem] = {}
    counts: Counter[str] = Counter()
    draws: list[Draw] = []
    labels: dict[tuple[str, int], bool] = {}
    skipped: list[Skipped] = []
    for record in _posed(read_rollouts(path, limit=limit), name, rule, join or (lambda prompt: None)):
        if isinstance(record, Skipped):
            skipped.append(record)
            continue
        problem, rollout = record
        problems.setdefault(problem.id, problem)
        draw = Draw(problem=problem, number=counts[problem.id], given=_reply(rollout))
        counts[problem.id] += 1
        draws.append(draw)
        if (label := _label(rollout.metadata)) is not None:
            labels[problem.id, draw.number] = label
    if not draws:
        first = f"; the first: {skipped[0].message}" if skipped else ""
        raise InputError(f"expected responses with gold answers in {str(path)!r}, got none{first}")
    suite = Suite(name=name, problems=list(problems.values()), skipped=skipped)
    return Responses(suite=suite, draws=draws, labels=labels)


def _posed(
    records: Iterable[Rollout | Skipped], name: str, rule: str | None, join: Join
) -> Iterator[Skipped | tuple[Problem, Rollout]]:
    for record in records:
        if isinstance(record, Skipped):
            yield record
            continue
        metadata = record.metadata
        gold = next((metadata[key] for key in GOLD if isinstance(metadata.get(key), str | int | float)), None)
        chosen = rule or metadata.get("rule") or "math"
        if gold is None or not str(gold).strip():
            yield _joined(record, join)
        elif chosen not in RULES:
            message = f"expected a rule of grading out of {', '.join(RULES)}, got {chosen!r}"
            yield Skipped(id=record.id, reason="no_rule", message=message)
        else:
            yield _problem(record, name, str(chosen), read_gold(str(gold))), record


def _joined(record: Rollout, join: Join) -> Skipped | tuple[Problem, Rollout]:
    why = ""
    try:
        problem = join(record.prompt)
    except (InputError, MissingDependencyError) as error:  # of the benchmark; other records may need none
        problem, why = None, f": {error}"
    if problem is not None:
        return problem, record
    wanted = f"a right answer in one of the fields {', '.join(GOLD)}, or the question of a benchmark that is named"
    return Skipped(id=record.id, reason="no_gold", message=f"expected {wanted}, got {sorted(record.metadata)}{why}")


def _problem(rollout: Rollout, name: str, rule: str, gold: str) -> Problem:
    messages = as_messages(rollout.prompt)
    key = json.dumps([messages, gold])
    metadata = rollout.metadata
    options, tolerance = metadata.get("options"), metadata.get("tolerance")
    return Problem(
        id=f"{name}/{hashlib.sha256(key.encode()).hexdigest()[:16]}",
        key=key,
        prompt=messages,
        gold=gold,
        facts={
            "rule": rule,
            "options": options if isinstance(options, Mapping) else {},
            "tolerance": tolerance if isinstance(tolerance, float) else None,
            "source": rollout.id,
        },
    )


def _reply(rollout: Rollout) -> Reply:
    metadata: Mapping[str, Any] = rollout.metadata
    tokens = metadata.get("tokens")
    finished = metadata.get("finished", metadata.get("finish_reason") != "length")
    return Reply(text=rollout.response, tokens=tokens if isinstance(tokens, int) else None, finished=bool(finished))


def _label(metadata: Mapping[str, Any]) -> bool | None:
    return next((bool(metadata[key]) for key in LABELS if metadata.get(key) in (0, 1)), None)
