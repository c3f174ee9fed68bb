"""Many rollouts into partitioned tables, by any number of processes that share a folder.

    out/options.json            what the folder was made with; a later run must agree
    out/rollouts/<part>.parquet one row a rollout, those without a trace too
    out/tokens/<part>.parquet   one row a token, over the traces of the part
    out/traces/*.safetensors    with `keep_traces` alone, a file a trace
    out/attempts/<part>.jsonl   of parts in the making

1. Rollouts come in windows of 256, in the order of the input. A window is a part: it is traced by one process, rollouts
   of similar length together, and stands when its table of rollouts does, which is written last and at once.
2. A part's name is its window's place and a digest of all that its tables follow from. So whoever is given a window
   again, in this run or a later one, finds its part or makes the same one: nothing is lost, and nothing stands twice.
3. Of a window that has no part, rollouts that stand in another part, because the input has shifted or got other labels,
   are copied from there; only the rest is traced.
4. A process that dies leaves a line in `attempts`. Its successor takes half the tokens a forward; from the third death
   on rollouts run one by one, and one that was being traced when two processes died is skipped by name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError
from flowtracer.folders import claim, digest
from flowtracer.trace.records import safe_name
from flowtracer.trace.rollout_table import (
    COLUMNS,
    MEASURED,
    Row,
    labels,
    read_rows,
    skipped_row,
    traced_row,
    write_rows,
)
from flowtracer.trace.table import TokenTableWriter
from flowtracer.trace.trace import Rollout, Skipped, Trace, load_trace
from flowtracer.tracing.attempts import WORKER_DIED, Attempts
from flowtracer.tracing.held import HeldRows
from flowtracer.tracing.memory import OUT_OF_MEMORY
from flowtracer.tracing.summary import Summary, Tally
from flowtracer.tracing.tracer import Tracer

KEY = 16
"""Hexadecimal digits: of ten million rollouts, two share a key with a probability of 3e-6."""
TRIED_AGAIN = frozenset({OUT_OF_MEMORY, WORKER_DIED})
"""Reasons that another machine may not have: a later run tries such rollouts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that stands on disk."""

    name: str
    made: int
    """Rollouts that were traced for it."""
    held: int
    """Traces of an earlier run."""
    skipped: Mapping[str, int]
    """Rollouts without a trace, by reason."""
    damaged: Sequence[str] = ()
    """Files of an earlier run that could not be read, whose rollouts were traced again."""


def windows(records: Iterable[Rollout | Skipped], size: int) -> Iterator[tuple[int, list[Rollout | Skipped]]]:
    """Records a part at a time, each with the place of its first."""
    stream = iter(records)
    for place in count(0, size):
        if not (window := list(islice(stream, size))):
            return
        yield place, window


def encode_window(records: Sequence[Rollout | Skipped]) -> bytes:
    """A window as JSON, to be sent to another process."""
    return json.dumps([{type(record).__name__: asdict(record)} for record in records]).encode("ascii")


def decode_window(content: bytes) -> list[Rollout | Skipped]:
    """What `encode_window` was given."""
    return [
        Skipped(**item["Skipped"]) if "Skipped" in item else _rollout(**item["Rollout"]) for item in json.loads(content)
    ]


def _rollout(token_ids: list[list[int]] | None, **said: Any) -> Rollout:
    return Rollout(**said, token_ids=None if token_ids is None else (token_ids[0], token_ids[1]))


class PartFolder:
    """A folder of parts.

    Args:
        path: Made if it does not exist.
        options: What the traces depend on; must be what an earlier run in this folder was given.
        model: What tells the model from another of the same name, such as `model_digest`.
        keep_traces: Whether a file is kept for each trace.

    Raises:
        InputError: The folder cannot be written, or was made with other options.
        FormatError: What it was made with cannot be read.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], *, model: str = "", keep_traces: bool = False) -> None:
        self.path = path
        self.rollouts, self.tokens, self.traces = path / "rollouts", path / "tokens", path / "traces"
        claim(path, {**options, "traces": keep_traces})
        for folder in (self.rollouts, self.tokens, self.traces) if keep_traces else (self.rollouts, self.tokens):
            folder.mkdir(exist_ok=True)
        self._keep_traces = keep_traces
        self._options = digest(options, model)
        self._held = HeldRows(self.rollouts, self.tokens, TRIED_AGAIN)
        self._damaged: set[str] = set()

    def make(
        self,
        place: int,
        records: Sequence[Rollout | Skipped],
        tracer: Tracer,
        *,
        max_tokens: int = 4096,
        finish: Callable[[Trace], Trace] | None = None,
    ) -> Part:
        """Make the part of a window, unless it stands.

        Args:
            place: In the input, of the first of them.
            records: Its rollouts, and records that could not be read.
            tracer: Reads the model.
            max_tokens: Tokens of one forward, padding included.
            finish: What else to measure of a trace before it is written.
        """
        rows = [self._row(place + index, record) for index, record in enumerate(records)]
        name = f"part-{place:09d}-{digest(self._options, rows)[:KEY]}"
        if (done := self._standing(name)) is not None:
            return done
        attempts = Attempts(self.path / "attempts" / f"{name}.jsonl")
        with TokenTableWriter(self.tokens / f"{name}.parquet") as table:
            pairs = zip(rows, records, strict=True)
            pending = [(row, r) for row, r in pairs if isinstance(r, Rollout) and not self._copy(row, r, table)]
            for index, result in attempts.trace(
                tracer, [(row["key"], rollout) for row, rollout in pending], max_tokens=max_tokens
            ):
                row, _ = pending[index]
                if isinstance(result, Skipped):
                    row |= skipped_row(result)
                else:
                    self._add(row, finish(result) if finish else result, table)
        write_rows(part_file(self.path, name), rows)
        attempts.forget()
        damaged, self._damaged, self._held.damaged = {*self._damaged, *self._held.damaged}, set(), []
        return _part(name, rows, sum(row["trace"] is not None for row, _ in pending), sorted(damaged))

    def _standing(self, name: str) -> Part | None:
        """A part that an earlier attempt or run has made, unless some of it is to be tried again."""
        file = part_file(self.path, name)
        for wanted in (self.tokens / file.name, file):  # in this order, whenever the process ends
            if not wanted.exists() and (aside := _aside(wanted)).exists():
                aside.rename(wanted)
        if not (file.exists() and (self.tokens / file.name).exists()):
            return None
        try:
            rows = list(read_rows([file], ("reason", "trace")))
        except FormatError:  # it is made again, in its place
            self._damaged.add(f"{file.parent.name}/{file.name}")
            return None
        return None if any(row["reason"] in TRIED_AGAIN for row in rows) else _part(name, rows, 0)

    def _row(self, place: int, record: Rollout | Skipped) -> dict[str, Any]:
        """A row as far as it is known without a model."""
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        if isinstance(record, Skipped):
            return {**row, "place": place, **skipped_row(record), "key": None}
        key = digest(self._options, record.digest)[:KEY]
        return {**row, "place": place, "id": record.id, "key": key, **labels(record.metadata)}

    def _add(self, row: dict[str, Any], trace: Trace, table: TokenTableWriter) -> None:
        row |= {**traced_row(trace), "trace": _trace_name(row)}
        table.write(row["trace"], trace)
        if self._keep_traces:
            trace.save(self.traces / f"{row['trace']}.safetensors")

    def _copy(self, row: dict[str, Any], rollout: Rollout, table: TokenTableWriter) -> bool:
        """Take what another part holds of the same rollout; False where none does."""
        if (found := self._held.find(row["key"])) is None:
            return False
        held = found.row["trace"]
        if held is not None:
            name = _trace_name(row)
            if self._keep_traces and not self._copy_trace(held, name, rollout):
                return False
            try:
                table.copy(name, found.tokens, held)
            except FormatError:  # it is traced again
                self._damaged.add(f"{found.tokens.parent.name}/{found.tokens.name}")
                return False
            row["trace"] = name
        row |= {column: found.row[column] for column in MEASURED}
        return True

    def _copy_trace(self, held: str, name: str, rollout: Rollout) -> bool:
        """Save a trace under another name; False where it is gone or damaged."""
        for suffix in (".safetensors", ".unused"):
            if not (file := self.traces / f"{held}{suffix}").exists():
                continue
            try:
                trace = load_trace(file)
            except FormatError:
                self._damaged.add(f"{file.parent.name}/{file.name}")
                continue
            replace(trace, metadata={"id": rollout.id, **rollout.metadata}).save(self.traces / f"{name}.safetensors")
            return True
        return False


def part_file(folder: Path, name: str) -> Path:
    """Table of rollouts of a part."""
    return folder / "rollouts" / f"{name}.parquet"


def part_files(folder: Path) -> list[Path]:
    """Tables of rollouts, in the order of the input."""
    return sorted((folder / "rollouts").glob("part-*.parquet"))


def finish_parts(folder: Path, names: Collection[str]) -> Summary:
    """Set aside what is of none of these parts, as `*.unused`, and write the summary of the rest."""
    wanted = {f"{name}.parquet" for name in names}
    for file in (file for kind in ("rollouts", "tokens") for file in (folder / kind).iterdir()):
        if file.suffix == ".partial":
            file.unlink()
        elif file.suffix == ".parquet" and file.name not in wanted:
            file.rename(_aside(file))
    tally = Tally()
    for row in read_rows(part_files(folder), Tally.COLUMNS):
        tally.add(row)
    if (traces := folder / "traces").is_dir():
        kept = {f"{row['trace']}.safetensors" for row in read_rows(part_files(folder), ("trace",))}
        for file in traces.glob("*.safetensors"):
            if file.name not in kept:
                file.rename(file.with_suffix(".unused"))
    summary = tally.summary()
    summary.write(folder)
    return summary


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.unused")


def _trace_name(row: Row) -> str:
    return f"{row['place']:07d}-{safe_name(row['id'])}-{row['key']}"


def _part(name: str, rows: Sequence[Row], made: int, damaged: Sequence[str] = ()) -> Part:
    traced = sum(row["trace"] is not None for row in rows)
    reasons = Counter(row["reason"] for row in rows if row["reason"] is not None)
    return Part(name=name, made=made, held=traced - made, skipped=dict(reasons), damaged=damaged)
