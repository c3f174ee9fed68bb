"""A study as one TOML file: a run file whose credit is a list, and seeds.

    # flowtracer study experiments/runs/countdown.toml
    model = "nano"

    [matrix]
    seeds = 5                      # 0 to 4
    baseline = "uniform"           # what the others are compared to; the first of the list unless given
    credit = [
        { name = "uniform" },
        { name = "flow", options = { keep = "bottom" }, label = "flow_bottom" },
        { name = "flow", grid = { ratio = [0.2, 0.6], gamma = [1.2, 2.0] } },    # four runs
    ]

    [task]                         # and [evaluation], [grpo]: as in a run file, the same for every run

Every entry is one run, every combination of its grid one more; each is trained under every seed. Its label names it in
tables and on disk; unless given it is the strategy's name with the options: `flow-ratio=0.2-gamma=1.2`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from flowtracer.credit import make_credit
from flowtracer.errors import InputError
from flowtracer.rl.run import CreditSection, EvaluationSection, RunFile, Section, TaskSection, read_sections
from flowtracer.tasks import make_task


class Entry(Section):
    """A strategy of credit, or several that differ in their options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Options with the values that each takes; every combination is a run."""
    normalise: bool = False
    label: str | None = Field(default=None, pattern=r"^\w[\w.=-]*$")


class Matrix(Section):
    """What differs between runs."""

    credit: list[Entry] = Field(min_length=1)
    seeds: int = Field(default=3, gt=0)
    """Every run is trained under the seeds from 0 to one less than this."""
    baseline: str | None = None


class StudyFile(Section):
    """A study: what differs, and what is common to all."""

    model: str
    dtype: str | None = None
    matrix: Matrix
    task: TaskSection
    evaluation: EvaluationSection
    grpo: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The runs of a study."""

    name: str
    file: Path
    runs: Mapping[str, RunFile]
    """By label, in the file's order; seed and output folder are still open."""
    seeds: range
    baseline: str

    def run(self, label: str, seed: int, output_dir: Path) -> RunFile:
        """One run under one seed."""
        return self.runs[label].model_copy(update={"seed": seed, "output_dir": output_dir})


def read_study(path: str | Path) -> Study:
    """Read a study's file and check everything that can be checked without a model.

    Raises:
        InputError: A field, strategy, option or task that does not exist, a label that comes twice, a baseline that
            is none of the runs, or nothing to measure.
    """
    path = Path(path)
    file = read_sections(path, StudyFile)
    if not file.evaluation.problems:
        raise InputError("expected evaluation.problems above 0, the held-out problems that runs are compared on, got 0")
    make_task(file.task.name, file.task.options)
    runs: dict[str, RunFile] = {}
    for label, credit in _credits(file.matrix):
        make_credit(credit.name, credit.options)
        if label in runs:
            raise InputError(f"expected runs of different labels, got {label!r} twice; give one a label of its own")
        runs[label] = RunFile(
            model=file.model,
            dtype=file.dtype,
            output_dir=Path(),
            task=file.task,
            credit=credit,
            evaluation=file.evaluation,
            grpo=file.grpo,
        )
    baseline = file.matrix.baseline or next(iter(runs))
    if baseline not in runs:
        raise InputError(f"expected matrix.baseline among {sorted(runs)}, got {baseline!r}")
    return Study(name=path.stem, file=path, runs=runs, seeds=range(file.matrix.seeds), baseline=baseline)


def _credits(matrix: Matrix) -> Iterator[tuple[str, CreditSection]]:
    """Every entry with every combination of its grid, and its label."""
    for entry in matrix.credit:
        for values in itertools.product(*entry.grid.values()):
            varied = dict(zip(entry.grid, values, strict=True))
            options = entry.options | varied
            label = _label(entry.label, varied) if entry.label else _label(entry.name, options)
            yield label, CreditSection(name=entry.name, options=options, normalise=entry.normalise)


def _label(name: str, options: Mapping[str, Any]) -> str:
    """A name that tells options apart and may stand in a path."""
    said = (f"{key}={str(value).strip('[]')}" for key, value in options.items())
    return "-".join([name, *(re.sub(r"[^\w.=-]+", "_", text) for text in said)])
