"""Rollouts in, from the files that people have.

1. A file is a stream of records: lines of JSON, a JSON list, or rows of Parquet. Several files, as `sources.py` finds
   them, are one stream.
2. A record is recognised by its fields: the first of `_LAYOUTS` that fits turns it into one rollout or several.
3. A prompt is text, used as it is, or chat messages, which may show images (`pictures.py` says which files they may
   name); a question becomes one message of the user. Other fields travel along as metadata, as far as JSON can hold
   them.
4. A record that cannot be read is a `Skipped` with its place in the file, and the others go on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import reprlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError, InputError
from flowtracer.text.messages import with_images
from flowtracer.trace.pictures import located
from flowtracer.trace.sources import HUB, find_files, read_data_set
from flowtracer.trace.trace import Rollout, Skipped

Record = Mapping[str, Any]
_Reader = Callable[[Path], Iterator[tuple[int, Any]]]


class BadRecord(Exception):
    """A reason and a message, as `Skipped` has them."""

    def skipped(self, place: str) -> Skipped:
        """The record at this place of its file, left out."""
        reason, message = self.args
        return Skipped(id=place, reason=reason, message=message)


def read_rollouts(source: str | Path, *, limit: int | None = None) -> Iterator[Rollout | Skipped]:
    """Read rollouts one after another, with the records that hold none.

    Args:
        source: A `.jsonl`, `.jsonl.gz`, `.json` (a list) or `.parquet` file; a folder of them; a pattern such as
            `runs/*/completions/*.parquet`; or `hub:owner/name:config=C,split=S`.
        limit: Stop after so many rollouts; bad records do not count.

    Raises:
        InputError: No such file, or of another kind; no such data set.
        FormatError: A file that is not what its name says. Where there are several, it is a `Skipped`.
        MissingDependencyError: A data set of the hub without `datasets`.
    """
    source = str(source)
    if source.startswith(HUB):
        name, records = read_data_set(source)
        return _rollouts(((f"{name}:{number}", str(number), record, None) for number, record in records), limit)
    files = find_files(source, tuple(_READERS))
    if files == [Path(source)]:
        return _rollouts(_placed(files[0], read_records(files[0])), limit)
    return _rollouts((placed for file in files for placed in _of_several(file)), limit)


def read_records(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Read the records of a file with their numbers from 1 on; a `BadRecord` stands for one that cannot be read.

    Raises:
        InputError: No such file, or of another kind.
        FormatError: A file that is not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        got = "a folder; pass one of its files" if path.is_dir() else "no file; check the path"
        raise InputError(f"expected a file of rollouts or problems, got {str(path)!r}, which is {got}")
    reader = next((reader for suffix, reader in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise InputError(f"expected a file that ends in {', '.join(_READERS)}, got {str(path)!r}; convert it first")
    return _records(path, reader)


_Placed = tuple[str, str, Any, Path | None]
"""A record's place as messages say it, what it is called if it has no name, the record, and the folder of its file."""


def _placed(file: Path, records: Iterator[tuple[int, Any]], prefix: str = "") -> Iterator[_Placed]:
    return ((f"{file.name}:{number}", f"{prefix}{number}", record, file.parent) for number, record in records)


def _of_several(file: Path) -> Iterator[_Placed]:
    """Records of one file out of many, of which one that is broken stops no other."""
    stem = file.name.split(".")[0]
    try:
        yield from _placed(file, read_records(file), f"{stem}:")
    except FormatError as error:
        yield str(file), stem, BadRecord("broken_file", str(error)), None


def _rollouts(records: Iterator[_Placed], limit: int | None) -> Iterator[Rollout | Skipped]:
    found = 0
    for place, name, record, folder in records:
        outcomes: list[Rollout] | list[Skipped]
        try:
            outcomes = [_with_files(rollout, folder) for rollout in _interpret(record, name)]
        except BadRecord as error:
            outcomes = [error.skipped(place)]
        for outcome in outcomes:
            if limit is not None and found >= limit:
                return
            found += isinstance(outcome, Rollout)
            yield outcome


def _with_files(rollout: Rollout, folder: Path | None) -> Rollout:
    """The rollout, its images by the paths of their files."""
    if isinstance(rollout.prompt, str):
        return rollout
    try:
        return replace(rollout, prompt=with_images(rollout.prompt, lambda image: {"image": located(image, folder)}))
    except InputError as error:
        raise BadRecord("bad_image", str(error)) from error


def _records(path: Path, reader: _Reader) -> Iterator[tuple[int, Any]]:
    """The reader's records, with every way in which a whole file can be bad under one name."""
    try:
        yield from reader(path)
    except PermissionError as error:
        raise InputError(f"expected a file that can be read, got {error}; change its permissions") from error
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"expected {str(path)!r} to be what its name says, got {error}; write it anew") from error


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            # ValueError: not UTF-8, not JSON, or an integer of more digits than Python converts.
            except (ValueError, RecursionError) as error:
                yield number, BadRecord("broken_json", f"expected a JSON object on the line, got {error}")


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, list):
        raise ValueError(f"not a list of records but one {type(content).__name__}")
    yield from enumerate(content, 1)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=256) for row in batch.to_struct_array())
            for number, row in enumerate(rows, 1):
                try:
                    yield number, row.as_py()
                except ValueError as error:  # Parquet does not check that its text is UTF-8
                    yield number, BadRecord("broken_row", f"expected a row of readable fields, got {error}")
    except pyarrow.ArrowException as error:  # most are a ValueError or OSError, but not all that damage leads to
        raise ValueError(error) from error


_READERS = {".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".json": _json, ".parquet": _parquet}


def _interpret(record: Any, name: str) -> list[Rollout]:
    if isinstance(record, BadRecord):
        raise record
    if not isinstance(record, Mapping):
        raise BadRecord("not_an_object", f"expected an object with named fields, got {reprlib.repr(record)}")
    layout = next((layout for layout in _LAYOUTS.values() if layout.fits(record)), None)
    if layout is None:
        known = "; or ".join(f"{layout.fields} ({name})" for name, layout in _LAYOUTS.items())
        raise BadRecord("unknown_schema", f"expected {known}; got the fields {reprlib.repr(sorted(record))}")
    return layout.read(record, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    fields: str
    """What a record must have, as the message for an unknown one says it."""
    fits: Callable[[Record], bool]
    read: Callable[[Record, str], list[Rollout]]


def _pair(
    prompts: tuple[str, ...],
    responses: tuple[str, ...],
    as_prompt: Callable[[str, Any], str | list[dict[str, Any]]],
    as_response: Callable[[str, Any], str],
) -> _Layout:
    """One field for the prompt and one for the response, each the first of its names that is not null."""

    def read(record: Record, name: str) -> list[Rollout]:
        asked, answered = _first_filled(record, prompts), _first_filled(record, responses)
        prompt, response = as_prompt(asked, record[asked]), as_response(answered, record[answered])
        metadata = _metadata(record, {asked, answered, "id"})
        return [Rollout(prompt=prompt, response=response, id=_identity(record, name), metadata=metadata)]

    return _Layout(
        fields=f"{' or '.join(prompts)} with {' or '.join(responses)}",
        fits=lambda record: not record.keys().isdisjoint(prompts) and not record.keys().isdisjoint(responses),
        read=read,
    )


def _first_filled(record: Record, names: tuple[str, ...]) -> str:
    """Rows of one Parquet file have the same columns, so a synonym may stand there empty."""
    present = [name for name in names if name in record]
    return next((name for name in present if record[name] is not None), present[0])


def _prompt(name: str, value: Any) -> str | list[dict[str, Any]]:
    if not isinstance(value, list):
        return _text(name, value)
    if not value or not all(isinstance(message, Mapping) and "role" in message for message in value):
        raise _bad_field(name, "text or messages with role and content", value)
    return [{"role": _text(name, m["role"]), "content": _asked(name, m.get("content"))} for m in value]


def _asked(name: str, value: Any) -> str | list[dict[str, Any]]:
    """A content that may show images: in parts where it does."""
    parts = value if isinstance(value, list) else []
    if not any(isinstance(part, Mapping) and part.get("type") == "image" for part in parts):
        return _content(name, value)
    return [
        {"type": "image", "image": part.get("image") or part.get("path")}
        if isinstance(part, Mapping) and part.get("type") == "image"
        else {"type": "text", "text": _content(name, [part])}
        for part in parts
    ]


def _question(name: str, value: Any) -> str | list[dict[str, Any]]:
    return [{"role": "user", "content": _text(name, value)}]


def _response(name: str, value: Any) -> str:
    if not isinstance(value, list):
        return _text(name, value)
    # Of several messages the model read all but the last as its context: no single text stands for them.
    if len(value) != 1 or not isinstance(value[0], Mapping) or value[0].get("role") != "assistant":
        raise _bad_field(name, "text or one message of the assistant", value)
    return _content(name, value[0].get("content"))


def _content(name: str, value: Any) -> str:
    """A message's content: text, or parts of text as OpenAI's API writes them, one behind the other."""
    if not isinstance(value, list) or not value:
        return _text(name, value)
    if not all(isinstance(part, Mapping) and part.get("type") in _PARTS for part in value):
        raise _bad_field(name, "text, or parts of type text; in a prompt, or of type image", value)
    return "".join(_text(name, part.get("text")) for part in value)


_PARTS = ("text", "input_text", "output_text")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad_field(name, "text", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, and no tokenizer takes it
        raise _bad_field(name, "well-formed Unicode", value) from error
    return value


def _bad_field(name: str, expected: str, value: Any) -> BadRecord:
    return BadRecord("bad_field", f"expected {name} to be {expected}, got {reprlib.repr(value)}")


def _identity(record: Record, otherwise: str) -> str:
    names = ("id", "uid", "problem_id", "request_id")
    return next((str(record[name]) for name in names if isinstance(record.get(name), str | int)), otherwise)


def _metadata(record: Record, used: set[str]) -> dict[str, Any]:
    """Everything else. An `answer` beside a rollout is the correct one: the response may end in another."""
    rest = {name: value for name, value in record.items() if name not in used}
    if isinstance(rest.get("metadata"), Mapping):
        rest = {**rest.pop("metadata"), **rest}
    return {name: value for name, value in rest.items() if _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _read_graded(record: Record, name: str) -> list[Rollout]:
    """One rollout for each model's solution."""
    prompt = _question("question", record["question"])
    gold = [found.strip() for found in re.findall(r"^A:(.*)", str(record.get("ground_truth")), re.MULTILINE)]
    return [
        Rollout(
            prompt=prompt,
            response=_working(f"{source}.solution", graded["solution"]),
            id=f"{name}-{source}",
            metadata={"source": source, "is_correct": graded["is_correct"], "gold": gold[-1] if gold else None},
        )
        for source, graded in _graded(record).items()
    ]


def _graded(record: Record) -> dict[str, Record]:
    objects = {name: value for name, value in record.items() if isinstance(value, Mapping) and "solution" in value}
    return {name: value for name, value in objects.items() if isinstance(value.get("is_correct"), bool)}


def _working(name: str, value: Any) -> str:
    """`3 + 4 = <<3+4=7>>7` without the marks, which are a calculator's."""
    return re.sub(r"<<[^<>\n]*>>", "", _text(name, value))


_WORKED = re.compile(r"\n####[^\n]*\Z")
_LAYOUTS = {
    # TRL's completion logs, which have a step, an advantage and a column for each reward as well, and by hand
    "rollout": _pair(("prompt",), ("response", "completion"), _prompt, _response),
    # verl's trainer.rollout_data_dir: gts, score, step; the prompt is decoded without its special tokens
    "verl dump": _pair(("input",), ("output",), _prompt, _response),
    # the grade-school-maths release, with the solutions of several models
    "graded solutions": _Layout(
        fields="question with objects of is_correct and solution",
        fits=lambda record: "question" in record and bool(_graded(record)),
        read=_read_graded,
    ),
    # most other collections; a solution beside a model's own words is the reference, so it comes last
    "question": _pair(("question", "problem"), ("response", "completion", "output", "solution"), _question, _response),
    # the same release without models; a bare number in the answer shows no reasoning to trace
    "worked answer": replace(
        _pair(("question",), ("answer",), _question, _working),
        fields="question with an answer whose working ends in a line '#### x'",
        fits=lambda record: "question" in record and bool(_WORKED.search(str(record.get("answer")).strip())),
    ),
}


def safe_name(text: str) -> str:
    """A file stem that is safe on every system, and different for different texts even where case is ignored."""
    if len(text) <= _LONGEST_SLUG and _PLAIN.fullmatch(text):
        return text
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", text[:_LONGEST_SLUG]).strip("-")
    digest = hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
    return f"{slug or 'x'}--{digest}"


_LONGEST_SLUG = 40
# No device name of Windows, no capitals, and never a double hyphen: that is the mark of a digest.
_PLAIN = re.compile(r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])$)[a-z0-9_]+(?:-[a-z0-9_]+)*")
