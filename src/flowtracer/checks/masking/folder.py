"""The causal check of many rollouts into one folder, resumable.

    out/options.json     what the folder was made with; a later run must agree
    out/outcomes.jsonl   one line a rollout, written as soon as it is checked
    out/skipped.jsonl    rollouts that could not be read or checked, and why
    out/summary.json     the table, with intervals, curves and areas

A run that was killed goes on where it stopped: rollouts that have a line are not checked again, and a line that was cut
off is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowtracer.checks.masking.check import MaskingCheck, Outcome, VariantOutcome
from flowtracer.checks.masking.summary import MaskingSummary, summarise
from flowtracer.errors import TraceError
from flowtracer.folders import LineFile, as_lines, claim
from flowtracer.trace.trace import Rollout, Skipped


class MaskingFolder:
    """A folder of outcomes.

    Args:
        path: Made if it does not exist.
        options: What the outcomes depend on; must be what an earlier run in this folder was given.

    Raises:
        InputError: The folder cannot be written, or holds outcomes of other options.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        claim(path, options)
        self._file = LineFile(path / "outcomes.jsonl")

    def check(self, check: MaskingCheck, records: Sequence[Rollout | Skipped]) -> Iterator[Skipped | Outcome]:
        """Check what the folder does not hold yet; yields each outcome as soon as it stands on disk."""
        held = {line["number"]: line for line in self._file.lines()}
        skipped: list[Skipped] = []
        for number, record in enumerate(records):
            if number in held:
                yield _outcome(held[number])
                continue
            result: Skipped | Outcome
            try:
                result = record if isinstance(record, Skipped) else check.check(record)
            except TraceError as error:
                result = Skipped(id=record.id, reason=error.reason, message=str(error))
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                self._file.add([{"number": number, **asdict(result)}])
            yield result
        (self.path / "skipped.jsonl").write_text(as_lines(map(asdict, skipped)), encoding="utf-8")

    def outcomes(self) -> list[Outcome]:
        """All outcomes, in the order of their rollouts."""
        return [_outcome(line) for line in sorted(self._file.lines(), key=lambda line: line["number"])]

    def summarise(self) -> MaskingSummary:
        """Rebuild the table from the outcomes on disk."""
        summary = summarise(self.outcomes())
        (self.path / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
        return summary


def _outcome(line: Mapping[str, Any]) -> Outcome:
    fields = {name: value for name, value in line.items() if name not in ("number", "variants")}
    return Outcome(**fields, variants=[VariantOutcome(**variant) for variant in line["variants"]])
