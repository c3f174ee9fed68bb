"""The causal check of many rollouts into one folder, resumable.

    out/options.json     what the folder was made with; a later run must agree
    out/outcomes.jsonl   one line a rollout, written as soon as it is checked
    out/skipped.jsonl    rollouts that could not be read or checked, and why
    out/summary.json     the table, with intervals, curves and areas

A line's key is a digest of all that the rollout's record says but its id, of the options and of the model. A rollout
whose key has a line is not checked again, wherever it stands; equal ones share a line. Lines of other rollouts stay,
and are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowtracer.checks.masking.check import MaskingCheck, Outcome, VariantOutcome
from flowtracer.checks.masking.summary import MaskingSummary, summarise
from flowtracer.errors import TraceError
from flowtracer.folders import LineFile, claim, digest, write_atomically
from flowtracer.trace.trace import Rollout, Skipped


class MaskingFolder:
    """A folder of outcomes.

    Args:
        path: Made if it does not exist.
        options: What the outcomes depend on; must be what an earlier run in this folder was given.
        model: What tells the model from another of the same name, such as `model_digest`.

    Raises:
        InputError: The folder cannot be written, or holds outcomes of other options.
        FormatError: What it was made with cannot be read.
    """

    def __init__(self, path: Path, options: Mapping[str, Any], *, model: str = "") -> None:
        self.path = path
        claim(path, options)
        self._options = digest(options, model)

    def check(self, check: MaskingCheck, records: Iterable[Rollout | Skipped]) -> Iterator[Skipped | Outcome]:
        """Check what the folder does not hold yet; yields each outcome as soon as it stands on disk.

        Raises:
            FormatError: A line of an earlier run that cannot be read, or two of one rollout.
        """
        file, skipped = LineFile(self.path / "outcomes.jsonl"), LineFile(self.path / "skipped.jsonl")
        held = file.by("key")
        write_atomically(skipped.path, "")
        for record in records:
            if isinstance(record, Skipped):
                skipped.add([asdict(record)])
                yield record
                continue
            key = digest(self._options, record.digest, dict(record.metadata))
            if key not in held:
                try:
                    line = {"key": key, **asdict(check.check(record))}
                except TraceError as error:
                    missed = Skipped(id=record.id, reason=error.reason, message=str(error))
                    skipped.add([asdict(missed)])
                    yield missed
                    continue
                file.add([line])
                held[key] = line
            yield _outcome(held[key], record.id)

    def summarise(self, outcomes: Sequence[Outcome]) -> MaskingSummary:
        """The table over outcomes, which is written too."""
        summary = summarise(outcomes)
        write_atomically(self.path / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
        return summary


def _outcome(line: Mapping[str, Any], name: str) -> Outcome:
    fields = {name: value for name, value in line.items() if name not in ("key", "variants")}
    return Outcome(**fields | {"id": name}, variants=[VariantOutcome(**variant) for variant in line["variants"]])
