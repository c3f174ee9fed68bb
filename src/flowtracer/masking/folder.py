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

from flowtracer.errors import InputError, TraceError
from flowtracer.masking.check import MaskingCheck, Outcome, VariantOutcome
from flowtracer.masking.summary import MaskingSummary, summarise
from flowtracer.trace import Rollout, Skipped


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
        self._file = path / "outcomes.jsonl"
        wanted = json.loads(json.dumps(options))
        try:
            path.mkdir(parents=True, exist_ok=True)
            kept_file = path / "options.json"
            if not kept_file.exists():
                kept_file.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            kept = json.loads(kept_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"expected a folder that can be written, got {str(path)!r}: {error}") from error
        different = sorted(name for name in {*kept, *wanted} if kept.get(name) != wanted.get(name))
        if different:
            raise InputError(
                f"expected the options that {str(path)!r} was made with, got another {', '.join(different)}; "
                "choose another folder, or empty this one"
            )
        self._drop_half_line()

    def _drop_half_line(self) -> None:
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        if not text.endswith("\n") and text:
            self._file.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")

    def check(self, check: MaskingCheck, records: Sequence[Rollout | Skipped]) -> Iterator[Skipped | Outcome]:
        """Check what the folder does not hold yet; yields each outcome as soon as it stands on disk."""
        held = {line["number"]: line for line in self._lines()}
        skipped: list[Skipped] = []
        with self._file.open("a", encoding="utf-8") as file:
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
                    file.write(json.dumps({"number": number, **asdict(result)}) + "\n")
                    file.flush()
                yield result
        lines = "".join(json.dumps(asdict(item)) + "\n" for item in skipped)
        (self.path / "skipped.jsonl").write_text(lines, encoding="utf-8")

    def outcomes(self) -> list[Outcome]:
        """All outcomes, in the order of their rollouts."""
        return [_outcome(line) for line in sorted(self._lines(), key=lambda line: line["number"])]

    def summarise(self) -> MaskingSummary:
        """Rebuild the table from the outcomes on disk."""
        summary = summarise(self.outcomes())
        (self.path / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
        return summary

    def _lines(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        return [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]


def _outcome(line: Mapping[str, Any]) -> Outcome:
    fields = {name: value for name, value in line.items() if name not in ("number", "variants")}
    return Outcome(**fields, variants=[VariantOutcome(**variant) for variant in line["variants"]])
