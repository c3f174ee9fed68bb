"""Many rollouts into one folder, resumable.

    out/options.json         what the folder was made with; a later run must agree
    out/traces/*.safetensors one trace a rollout: <place in the file>-<id>-<key>.safetensors
    out/skipped.jsonl        rollouts that could not be read or traced, and why
    out/tokens.parquet       one row a token, over all traces
    out/summary.json         the numbers of the summary table

1. A trace's key is a digest of what the rollout says, of the options and of the model. A trace that the folder holds
   under a rollout's key is that rollout's, wherever it stood; it gets its place, id and metadata. A damaged one is
   named and computed again.
2. Rollouts are read, encoded and traced a window at a time, so that the first is traced at once and memory does not
   grow with the file. Traces are written as soon as they are made: a run that was killed goes on where it stopped.
3. In the end, traces that are of none of the rollouts are set aside as `*.unused`, to come back when asked for.
4. The table and the summary are rebuilt from the traces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError
from flowtracer.folders import PARTIAL, LineFile, claim, digest, write_atomically
from flowtracer.trace.records import safe_name
from flowtracer.trace.rollout_table import traced_row
from flowtracer.trace.table import TokenTableWriter
from flowtracer.trace.trace import Rollout, Skipped, Trace, load_trace
from flowtracer.tracing.memory import trace_within_memory
from flowtracer.tracing.summary import Summary, Tally
from flowtracer.tracing.tracer import Tracer

_WINDOW = 256
"""Rollouts read ahead: enough that those of a forward are of similar length."""
_KEY = 16
"""Hexadecimal digits: of ten million traces, two share a key with a probability of 3e-6."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A trace that stands on disk."""

    file: Path
    held: bool
    """From an earlier run."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file of an earlier run that could not be read, and is gone; its rollout is traced again."""

    file: Path
    message: str


class TraceFolder:
    """A folder of traces.

    Args:
        path: Made if it does not exist.
        options: What the traces depend on; must be what an earlier run in this folder was given.
        model: What tells the model from another of the same name, such as `model_digest`.

    Raises:
        InputError: The folder cannot be written, or holds traces made with other options.
        FormatError: What it was made with cannot be read.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], *, model: str = "") -> None:
        self.path = path
        self.traces = path / "traces"
        claim(path, options)
        self.traces.mkdir(exist_ok=True)
        self._skipped = LineFile(path / "skipped.jsonl")
        self._options = digest(options, model)

    def trace(
        self,
        tracer: Tracer,
        records: Iterable[Rollout | Skipped],
        *,
        max_tokens: int = 4096,
        finish: Callable[[Trace], Trace] | None = None,
    ) -> Iterator[Traced | Damaged | Skipped]:
        """Trace what the folder does not hold yet; yields each outcome as soon as it stands on disk.

        Args:
            tracer: Reads the model.
            records: Read a few hundred at a time.
            max_tokens: Tokens of one forward, padding included.
            finish: What else to measure of a trace before it is written.
        """
        held = self._held()
        write_atomically(self._skipped.path, "")
        numbered = enumerate(records)
        while window := list(islice(numbered, _WINDOW)):
            pending: list[tuple[Path, Rollout]] = []
            for index, record in window:
                if isinstance(record, Skipped):
                    yield self._skip(record)
                    continue
                key = digest(self._options, record.digest)[:_KEY]
                file = self.traces / f"{index:07d}-{safe_name(record.id)}-{key}.safetensors"
                found = _take(held, key, file.name)
                outcome = None if found is None else _reuse(self.traces / found, file, record)
                if outcome is not None:
                    yield outcome
                if not isinstance(outcome, Traced):
                    pending.append((file, record))
            rollouts = [rollout for _, rollout in pending]
            for place, result in trace_within_memory(tracer, rollouts, max_tokens=max_tokens):
                if isinstance(result, Skipped):
                    yield self._skip(result)
                else:
                    yield Traced((finish(result) if finish else result).save(pending[place][0]), held=False)
        for names in held.values():
            for file in map(self.traces.joinpath, names):
                file.rename(file.with_suffix(".unused"))

    def files(self) -> list[Path]:
        """Trace files, in the order of their rollouts."""
        return sorted(self.traces.glob("*.safetensors"))

    def unused(self) -> list[Path]:
        """Files of traces that are of none of the rollouts; they may be deleted."""
        return sorted(self.traces.glob("*.unused"))

    def summarise(self) -> Summary:
        """Rebuild the token table and the summary from the traces on disk."""
        tally = Tally()
        for line in self._skipped.lines():
            tally.add(line)
        with TokenTableWriter(self.path / "tokens.parquet") as table:
            for file in self.files():
                trace = load_trace(file)
                table.write(file.stem, trace)
                tally.add(traced_row(trace))
        summary = tally.summary()
        summary.write(self.path)
        return summary

    def _held(self) -> dict[str, list[str]]:
        """Names of earlier runs' traces by their keys, those that were set aside last."""
        held: dict[str, list[str]] = {}
        names = [file.name for file in self.traces.iterdir()]  # there may be a million, too many for so many paths
        for name in filter(PARTIAL.fullmatch, names):  # by a process that was killed while it wrote
            (self.traces / name).unlink()
        for suffix in (".safetensors", ".unused"):
            for name in sorted(name for name in names if name.endswith(suffix)):
                held.setdefault(name.removesuffix(suffix).rpartition("-")[2], []).append(name)
        return held

    def _skip(self, skipped: Skipped) -> Skipped:
        self._skipped.add([asdict(skipped)])
        return skipped


def _take(held: dict[str, list[str]], key: str, name: str) -> str | None:
    """A trace held under this key, that of this name if there is one: equal rollouts stand at several places."""
    names = held.get(key, [])
    if not names:
        return None
    return names.pop(names.index(name) if name in names else 0)


def _reuse(found: Path, file: Path, rollout: Rollout) -> Traced | Damaged:
    """Give a trace its rollout's place, id and metadata."""
    try:
        trace = load_trace(found)
    except FormatError as error:
        found.unlink()
        return Damaged(found, str(error))
    metadata = {"id": rollout.id, **rollout.metadata}
    if digest(dict(trace.metadata)) != digest(metadata):
        replace(trace, metadata=metadata).save(found)
    return Traced(found.rename(file), held=True)
