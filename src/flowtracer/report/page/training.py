"""Training as a page: a slider over the kept steps, the text coloured by advantage times credit as it entered the loss.

Reads what a trainer kept (`flowtracer.rl.training_traces`): `traces/step-000010/prompt-00-r00.safetensors` is response
0 to fixed prompt 0 at step 10, `batch-r00` a response to the first prompt of the batch. Each trace is packed by itself
and unpacked when it is looked at. Numbers that entered the loss are kept whole; all else is rounded as on every page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowtracer.errors import FormatError, InputError
from flowtracer.report.page.html import render
from flowtracer.report.page.payload import pack, pack_trace
from flowtracer.text.printable import one_line
from flowtracer.trace.measures import concentration, hub_share, reward, verdict
from flowtracer.trace.trace import Trace, load_trace

EDGES = 300
"""Largest edges of each trace: the picture is small, and there may be thousands."""


def training_page(folder: Path, *, on_bad: Callable[[Path, FormatError], None] | None = None) -> str:
    """The page of a run, from its output folder or the `traces` in it.

    Args:
        folder: Of the run.
        on_bad: Called with a file that is no trace, which the page then shows as missing.

    Raises:
        InputError: The folder holds no kept steps.
        FormatError: A file that is no trace, without `on_bad`; or none of them is one.
    """
    steps = _kept_steps(folder)
    entries: list[dict[str, Any]] = []
    packed: list[str] = []
    largest = 0.0
    for number, step in steps:
        for file in sorted(step.glob("*.safetensors")):
            try:
                trace = load_trace(file)
            except FormatError as error:
                if on_bad is None:
                    raise
                on_bad(file, error)
                entries.append({**_place(number, file.stem), "at": None, "reason": "damaged"})
                continue
            entries.append({**_place(number, file.stem), "at": len(packed), **_entry(trace)})
            packed.append(pack_trace(trace, EDGES))
            if trace.trained is not None:
                largest = max(largest, float(np.abs(trace.trained.token_advantage).max(initial=0)))
        skipped = step / "skipped.jsonl"
        for line in skipped.read_text(encoding="utf-8").splitlines() if skipped.is_file() else []:
            item = json.loads(line)
            entries.append({**_place(number, item["id"]), "at": None, "reason": item["reason"]})
    if not packed and any(entry.get("reason") == "damaged" for entry in entries):
        raise FormatError(f"expected at least one trace that can be read in {str(folder)!r}, got none")
    header = {"steps": [number for number, _ in steps], "entries": entries, "largest": largest}
    name = one_line(folder.resolve().parent.name if folder.name == "traces" else folder.resolve().name)
    title = f"{name}: {len(steps)} kept step{'s' * (len(steps) > 1)}, {steps[0][0]} to {steps[-1][0]}"
    return render("training", title=title, data=pack(header, {}), traces=packed)


def _kept_steps(folder: Path) -> list[tuple[int, Path]]:
    candidates = [path for place in (folder, folder / "traces") for path in place.glob("step-*") if path.is_dir()]
    steps = [
        (int(path.name.removeprefix("step-")), path)
        for path in candidates
        if path.name.removeprefix("step-").isdecimal()
    ]
    if not steps:
        raise InputError(
            f"expected traces that a trainer kept in {str(folder)!r}, got no step-* folder there nor in its traces; "
            "train with trace_steps, or [traces] every = 10 in a run file"
        )
    return sorted(steps)


def _place(step: int, name: str) -> dict[str, Any]:
    group, _, response = name.rpartition("-r")
    return {"step": step, "group": group, "response": response}


def _entry(trace: Trace) -> dict[str, Any]:
    return {
        "answer": trace.answer_text,
        "verdict": verdict(trace),
        "trained": trace.trained is not None,
        "reward": reward(trace.metadata),
        "tokens": len(trace),
        "concentration": concentration(trace),
        "hubs": hub_share(trace),
    }
