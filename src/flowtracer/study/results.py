"""What is kept of a study's runs: curves out of their logs, in one JSON file a study.

    {"study": "countdown", "baseline": "uniform",
     "runs": {"flow": {"options": {...}, "seeds": {"0": {"machine": {...}, "steps": 30, ..., "held_out": [[0, ...]]}}}}}

A curve is a list of [step, value, ...]. Files are replaced whole, so that a kill leaves the old one or the new one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError, InputError
from flowtracer.folders import LineFile, refuse_others, write_atomically
from flowtracer.study.matrix import Study

COSTS = {
    "step_seconds": ("step_time",),
    "credit_seconds": ("credit/seconds",),
    "response_tokens": ("completions/mean_length",),
}
"""Curves of what a run costs, with what the log calls their values."""

_CURVES = {
    "held_out": ("held_out/accuracy", "held_out/low", "held_out/high"),
    "reward": ("reward",),
    **COSTS,
}
"""Curves that are kept, with what the log calls their values."""

_REMEDY = "give the study another name, or delete what was made"

RunCurves = dict[str, Any]
Document = dict[str, Any]


def read_curve(log: Path) -> RunCurves:
    """What is kept of one run's log.

    Raises:
        FormatError: It tells of no step.
    """
    curves: dict[str, list[list[float]]] = {name: [] for name in _CURVES}
    last: dict[str, float] = {}
    for line in LineFile(log).lines():
        for name, fields in _CURVES.items():
            if fields[0] in line:
                curves[name].append([line[field] for field in ("step", *fields)])
        if "num_tokens" in line:
            last = {"steps": line["step"], "epochs": line["epoch"], "tokens": line["num_tokens"]}
    if not last:
        raise FormatError(f"expected a log of training steps in {str(log)!r}, got none")
    return last | curves


def options_of(study: Study, label: str) -> dict[str, Any]:
    """What a run depends on, beside its seed."""
    return study.runs[label].model_dump(
        mode="json", exclude={"seed": True, "output_dir": True, "traces": True, "credit": {"generation_bytes": True}}
    )


def load_results(file: Path) -> Document:
    """The results of a study.

    Raises:
        InputError: No such file.
        FormatError: It does not hold results.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected results in {str(file)!r}, got {error}; run the study first") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"expected results in {str(file)!r}, got no JSON: {error}") from error
    if not isinstance(document, dict) or not {"study", "baseline", "runs"} <= document.keys():
        raise FormatError(f"expected results of a study in {str(file)!r}, got another kind of file")
    return document


def open_results(file: Path, study: Study) -> Document:
    """The results so far, in the study's order; empty ones where there are none.

    Raises:
        InputError: They were made with other options.
    """
    old = load_results(file) if file.exists() else {"runs": {}}
    runs = dict(old["runs"])
    for label in study.runs:
        options = options_of(study, label)
        kept = runs.get(label, {"options": options})["options"]
        refuse_others(kept, options, f"{label!r} in {str(file)!r}", _REMEDY)
    made = {label: runs.pop(label, {"options": options_of(study, label), "seeds": {}}) for label in study.runs}
    # What the study no longer names stays: results are not thrown away by an edit.
    return {"study": study.name, "baseline": study.baseline, "runs": made | runs}


def save_results(file: Path, document: Document) -> None:
    """Replace the file; a point of a curve stands on one line."""
    text = json.dumps(document, indent=1)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: f"[{' '.join(found.group()[1:-1].split())}]", text)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text + "\n")
