"""Problems of benchmarks out of the hub or out of files.

1. What is asked for is the name of a benchmark, `NAME=PATH` for one out of a local file, the path of any file of
   problems, or a task of `flowtracer.tasks`, with options as in `countdown:max_numbers=3,brief=true`.
2. A record becomes a question by the first of its fields that is not null, out of `QUESTION_FIELDS` and `GOLD_FIELDS`.
   A path with a dot goes into an object. A gold answer with its working (`#### 18`, a box) is cut down to the answer.
3. A record without one of them is skipped with a named reason, and so is a question that stood there before.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError
from flowtracer.evaluation.base import BOXED, LETTER, Benchmark, Question, lettered
from flowtracer.evaluation.grading import read_gold
from flowtracer.evaluation.registry import BENCHMARKS
from flowtracer.hub import read_hub
from flowtracer.tasks import TASKS, Problem, Task, parse_task
from flowtracer.trace.records import BadRecord, read_records
from flowtracer.trace.trace import Skipped

QUESTION_FIELDS = ("meta_data.question", "problem", "question", "Problem", "input", "prompt")
GOLD_FIELDS = (
    *("final_answer", "expected_answer", "reward_model.ground_truth", "answerKey", "gold", "ground_truth", "answer"),
    *("Answer", "target", "solution"),
)
OPTION_FIELDS = ("options", "choices", "meta_data.options")
TASK_PROBLEMS = 500
"""Problems of a task, whose stream never ends, where no limit is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Problems to be answered and graded together."""

    name: str
    """Of its lines and its row of the table."""
    problems: Sequence[Problem]
    skipped: Sequence[Skipped] = ()
    task: Task | None = None
    """Grades its own problems; others carry their rule."""


def load_suite(asked: str, *, limit: int | None = None, instruction: str | None = None) -> Suite:
    """The problems that a word of the command line asks for.

    Args:
        asked: A benchmark, `NAME=PATH`, a path, or a task with or without options.
        limit: Only the first so many.
        instruction: Follows the question in place of the benchmark's own; not for tasks.

    Raises:
        InputError: Nothing of that name, or a data set that cannot be reached.
        FormatError: A file that is not what its name says.
        MissingDependencyError: `datasets`, or what a task needs, is not installed.
    """
    if asked.partition(":")[0] in TASKS:
        task = parse_task(asked)
        return Suite(name=asked, problems=task.problems("test", limit or TASK_PROBLEMS), task=task)
    name, _, path = asked.partition("=")
    if asked in BENCHMARKS or (path and name in BENCHMARKS):
        benchmark = BENCHMARKS[name]
        records = _local(Path(path)) if path else _from_hub(name, benchmark)
        rule, usual, drawn = benchmark.rule, benchmark.instruction, None if path else benchmark.drawn
    elif is_path(asked):
        name, rule, usual, drawn = Path(asked).name.split(".")[0] or "problems", None, None, None
        records = _local(Path(asked))
    else:
        raise InputError(
            f"expected a benchmark ({', '.join(BENCHMARKS)}), a task ({', '.join(TASKS)}) or the path of a file of "
            f"problems, got {asked!r}"
        )
    questions, skipped = read_questions(records)
    if drawn is not None:
        questions = sorted(questions, key=lambda question: question.digest)[:drawn]
    if not questions:
        first = f"; the first: {skipped[0].message}" if skipped else ""
        raise InputError(f"expected at least one problem in {asked!r}, got none{first}")
    problems = []
    for question in questions[:limit]:
        chosen = rule or guess_rule(question)
        ask = instruction if instruction is not None else usual or (LETTER if chosen == "choice" else BOXED)
        problems.append(question.pose(name, chosen, ask))
    return Suite(name=name, problems=problems, skipped=skipped)


def is_path(asked: str) -> bool:
    """Whether a word of the command line is the path of a file, and no task's name with its options."""
    return asked.partition(":")[0] not in TASKS and any(sign in asked for sign in "/\\.")


def guess_rule(question: Question) -> str:
    """The rule for a file of one's own: choices by letter, whatever else as mathematics."""
    return "choice" if question.options else "math"


def read_questions(records: Iterable[tuple[str, Any]]) -> tuple[list[Question], list[Skipped]]:
    """Questions out of records with their places, and what is none."""
    questions: dict[str, Question] = {}
    skipped: list[Skipped] = []
    for place, record in records:
        try:
            question = read_question(record, place)
        except BadRecord as error:
            skipped.append(error.skipped(place))
            continue
        if question.digest in questions:
            first = questions[question.digest].source
            skipped.append(BadRecord("duplicate", f"expected a new question, got that of {first} again").skipped(place))
        else:
            questions[question.digest] = question
    return list(questions.values()), skipped


def read_question(record: Any, place: str) -> Question:
    """A question out of a record.

    Raises:
        BadRecord: It holds none.
    """
    if isinstance(record, BadRecord):
        raise record
    if not isinstance(record, Mapping):
        raise BadRecord("not_an_object", f"expected an object with named fields, got {reprlib.repr(record)}")
    field, asked = _first(record, QUESTION_FIELDS)
    if isinstance(asked, list) and asked and isinstance(asked[-1], Mapping):
        asked = _joined(asked[-1].get("content"))
    if not isinstance(asked, str) or not asked.strip():
        raise BadRecord("no_question", f"expected text in {field or _either(QUESTION_FIELDS)}, got {_shown(asked)}")
    if asked != asked.encode(errors="replace").decode():
        raise BadRecord("no_question", f"expected well-formed Unicode in {field}, got {_shown(asked)}")
    options = _options(record)
    field, gold = _first(record, GOLD_FIELDS)
    answer = _gold(gold, options)
    if not answer:
        raise BadRecord("no_gold", f"expected an answer in {field or _either(GOLD_FIELDS)}, got {_shown(gold)}")
    return Question(
        text=asked.strip(),
        gold=answer,
        options=options,
        tolerance=_tolerance(record.get("error")),
        source=next((str(record[key]) for key in ("unique_id", "id", "index") if record.get(key) is not None), place),
    )


def _joined(content: Any) -> Any:
    """A message's content; its parts, where they are all of text, as one."""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    return "".join(said) if said and len(said) == len(parts) else content


def _first(record: Mapping[str, Any], paths: Sequence[str]) -> tuple[str, Any]:
    for path in paths:
        value: Any = record
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return path, value
    return "", None


def _either(paths: Sequence[str]) -> str:
    return "one of the fields " + ", ".join(paths)


def _shown(value: Any) -> str:
    return "nothing" if value is None else reprlib.repr(value)


def _gold(value: Any, options: Mapping[str, str]) -> str:
    """As text. A list holds the parts of one answer; a whole number as a choice counts from 0."""
    if isinstance(value, list):
        parts = [_gold(part, {}) for part in value]
        return ", ".join(parts) if all(parts) else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # AMC's answers are stored as 27.0
    if options and isinstance(value, int):
        return list(options)[value] if 0 <= value < len(options) else ""
    text = read_gold(str(value))
    if options and text not in options:
        return next((letter for letter, option in options.items() if option == text), text)
    return text


def _options(record: Mapping[str, Any]) -> dict[str, str]:
    """Choices by letter, out of a list of texts, an object by letter, or ARC's two lists."""
    _, found = _first(record, OPTION_FIELDS)
    if isinstance(found, Mapping) and isinstance(found.get("text"), list) and isinstance(found.get("label"), list):
        found = dict(zip(found["label"], found["text"], strict=False))
    if isinstance(found, Mapping):
        return {str(letter): str(text) for letter, text in found.items() if text is not None}
    if isinstance(found, list) and all(isinstance(text, str) for text in found):
        return lettered([_UNLETTERED.sub("", text) for text in found])
    return {}


_UNLETTERED = re.compile(r"^\s*\(?[A-Z][).:]\s+")


def _tolerance(value: Any) -> float | None:
    try:
        return float(value) or None
    except (TypeError, ValueError):
        return None


def _local(path: Path) -> Iterator[tuple[str, Any]]:
    return ((f"{path.name}:{number}", record) for number, record in read_records(path))


def _from_hub(name: str, benchmark: Benchmark) -> Iterator[tuple[str, Any]]:
    instead = f"pass a local file of the same records: {name}=PATH.jsonl"
    rows = read_hub(benchmark.hub, benchmark.config, benchmark.split, instead=instead)
    return ((f"{benchmark.hub}:{number}", row) for number, row in rows)
