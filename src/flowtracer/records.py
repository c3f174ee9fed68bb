"""Rollouts in, from the files that people have; a table of tokens out.

A record is recognised by its fields, by the first layout that fits:

=================  ======================================================  =====================================
layout             fields                                                  who writes it
=================  ======================================================  =====================================
rollout            `prompt` with `response` or `completion`                TRL's completion logs, and by hand
verl               `input`, `output`                                       verl's rollout dumps
graded solutions   `question`, and objects with `solution`, `is_correct`   the grade-school-maths release
question           `question` or `problem` with `response`, `solution`,    most other collections
                   `completion` or `output`
=================  ======================================================  =====================================

A prompt is text, used as it is, or chat messages; a question becomes one message of the user. All other fields travel
along as metadata. A record that cannot be read is a `Skipped` with its place in the file, and the others go on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flowtracer.errors import FormatError, InputError
from flowtracer.trace import Rollout, Skipped, Trace

Record = Mapping[str, Any]
_ID_FIELDS = ("id", "uid", "problem_id", "request_id")


class _BadRecord(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_rollouts(path: str | Path, *, limit: int | None = None) -> Iterator[Rollout | Skipped]:
    """Read rollouts from a JSONL, JSON or Parquet file, one record after another.

    Args:
        path: A `.jsonl`, `.json` (a list) or `.parquet` file.
        limit: Stop after so many rollouts and bad records.

    Raises:
        InputError: No such file, or of another kind.
        FormatError: A file that is not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a file of rollouts, got {str(path)!r}, which is no file")
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    if path.suffix not in readers:
        raise InputError(f"expected a file that ends in {', '.join(readers)}, got {str(path)!r}")
    return islice(_rollouts(path, readers[path.suffix](path)), limit)


def _rollouts(path: Path, records: Iterator[tuple[int, Any]]) -> Iterator[Rollout | Skipped]:
    for number, record in records:
        try:
            if isinstance(record, _BadRecord):
                raise record
            yield from _interpret(record, number)
        except _BadRecord as error:
            yield Skipped(id=f"{path.name}:{number}", reason=error.reason, message=str(error))


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                yield number, _BadRecord("broken_json", f"expected a JSON object on the line, got {error}")


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"expected JSON in {str(path)!r}, got {error}") from error
    if not isinstance(content, list):
        raise FormatError(f"expected a list of records in {str(path)!r}, got {type(content).__name__}")
    yield from enumerate(content, 1)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise FormatError(f"expected a Parquet file, got {str(path)!r}: {error}") from error
    with file:
        rows = (row for batch in file.iter_batches(batch_size=256) for row in batch.to_pylist())
        yield from enumerate(rows, 1)


def _interpret(record: Any, number: int) -> Iterator[Rollout]:
    if not isinstance(record, Mapping):
        raise _BadRecord("not_an_object", f"expected an object with named fields, got {type(record).__name__}")
    for fits, read in _LAYOUTS:
        if fits(record):
            yield from read(record, number)
            return
    raise _BadRecord(
        "unknown_layout",
        "expected prompt and response (or completion), input and output, or question and solution; "
        f"got the fields {sorted(map(str, record))}",
    )


def _read_rollout(record: Record, number: int) -> Iterator[Rollout]:
    response = _first_field(record, ("response", "completion"))
    yield _rollout(record, number, _prompt(record["prompt"]), response, {"prompt", "response", "completion"})


def _read_verl(record: Record, number: int) -> Iterator[Rollout]:
    yield _rollout(record, number, _prompt(record["input"]), record["output"], {"input", "output"})


_SOLUTION_FIELDS = ("response", "solution", "completion", "output")


def _read_question(record: Record, number: int) -> Iterator[Rollout]:
    prompt = _question(record)
    used = {"question", "problem", *_SOLUTION_FIELDS}
    yield _rollout(record, number, prompt, _first_field(record, _SOLUTION_FIELDS), used)


def _read_graded(record: Record, number: int) -> Iterator[Rollout]:
    """One rollout for each model's solution, without the marks of the calculator that it had."""
    for source, graded in _graded(record).items():
        yield Rollout(
            prompt=_question(record),
            response=re.sub(r"<<[^<>\n]*>>", "", _text(graded["solution"], "solution")),
            id=f"{number}-{source}",
            metadata={"source": source, "is_correct": bool(graded["is_correct"])},
        )


def _graded(record: Record) -> dict[str, Record]:
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, Mapping) and {"solution", "is_correct"} <= set(value)
    }


_LAYOUTS: list[tuple[Callable[[Record], bool], Callable[[Record, int], Iterator[Rollout]]]] = [
    (lambda r: "prompt" in r and ("response" in r or "completion" in r), _read_rollout),
    (lambda r: "input" in r and "output" in r, _read_verl),
    (lambda r: "question" in r and bool(_graded(r)), _read_graded),
    (lambda r: ("question" in r or "problem" in r) and any(f in r for f in _SOLUTION_FIELDS), _read_question),
]


def _rollout(record: Record, number: int, prompt: Any, response: Any, used: set[str]) -> Rollout:
    if isinstance(response, list):  # messages: the assistant's words are the last one's
        last = response[-1] if response else None
        response = last.get("content") if isinstance(last, Mapping) else None
    # A correct answer that stands beside a rollout is gold: what the response ends in may be another.
    return Rollout(
        prompt=prompt,
        response=_text(response, "response"),
        id=str(next((record[name] for name in _ID_FIELDS if record.get(name) is not None), number)),
        metadata={str(k): v for k, v in record.items() if k not in used | {"id"} and _is_json(v)},
    )


def _prompt(value: Any) -> str | list[dict[str, str]]:
    if isinstance(value, str):
        return value
    messages = value if isinstance(value, list) else []
    if messages and all(isinstance(m, Mapping) and isinstance(m.get("content"), str) and "role" in m for m in messages):
        return [{"role": str(m["role"]), "content": m["content"]} for m in messages]
    raise _BadRecord("bad_field", f"expected text or messages with role and content, got {_shortly(value)}")


def _question(record: Record) -> list[dict[str, str]]:
    return [{"role": "user", "content": _text(_first_field(record, ("question", "problem")), "question")}]


def _first_field(record: Record, names: tuple[str, ...]) -> Any:
    return next(record[name] for name in names if name in record)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _BadRecord("bad_field", f"expected {name} as text, got {_shortly(value)}")
    return value


def _shortly(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def safe_name(text: str) -> str:
    """A file stem that is safe on every system and different for different texts."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:48]
    # Names that keep their case only, or that some system reserves, must not meet either: all but the plainest carry
    # a digest.
    if slug == text and re.fullmatch(r"[0-9]+[a-z0-9_-]*", slug):
        return slug
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}" if slug else digest


class TokenTableWriter:
    """Streams a Parquet table with one row a token, a row group a trace.

    The file appears under its name only when the block ends well, so an interrupted run leaves no half table.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._writer: Any = None

    def __enter__(self) -> TokenTableWriter:
        import pyarrow.parquet

        try:
            self._writer = pyarrow.parquet.ParquetWriter(self._partial, _schema(), compression="zstd")
        except OSError as error:
            raise InputError(
                f"expected a folder that can be written, got {str(self._path.parent)!r}: {error}"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink()

    def write(self, name: str, trace: Trace) -> None:
        """Append the tokens of one trace."""
        import pyarrow

        self._writer.write_table(pyarrow.table(_columns(name, trace), schema=_schema()))


def _schema() -> Any:
    import pyarrow

    fields = {
        "trace": "string",
        "position": "int32",
        "token_id": "int64",
        "token": "string",
        "region": "string",
    }
    fields |= {"step": "int32"}
    fields |= dict.fromkeys(("reach", "flow", "throughput", "fan_in", "fan_out"), "float64")
    return pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in fields.items()])


def _columns(name: str, trace: Trace) -> dict[str, Any]:
    length = len(trace)
    region = np.full(length, "prompt", dtype=object)
    region[trace.response.start :] = "reasoning"
    region[trace.answer.stop :] = "after"
    region[trace.answer.start : trace.answer.stop] = "answer"
    step = np.repeat(np.arange(len(trace.step_spans)), [len(span) for span in trace.step_spans])
    return {
        "trace": [name] * length,
        "position": np.arange(length, dtype=np.int32),
        "token_id": trace.token_ids,
        # Arrow takes valid Unicode only, and a model may write half of a surrogate pair.
        "token": [token.encode("utf-8", errors="replace").decode() for token in trace.tokens],
        "region": region.tolist(),
        "step": step.astype(np.int32),
        **{field: getattr(trace, field) for field in ("reach", "flow", "throughput", "fan_in", "fan_out")},
    }
