"""Runs of anybody's trainer, out of the logs that TRL's and transformers' trainers leave, for the same comparison.

1. A run is a folder, an `output_dir`. Its log is `log.jsonl`, as `flowtracer train` writes it, or `trainer_state.json`,
   in the folder or in its newest checkpoint. What cannot be read is named, and the next is tried.
2. Its seed is in its path: `seed-3`, `seed_3`, `seed3`. Differences are paired where runs share seeds: those that all
   have count, and others are named. Where they share none, all count, and differences are not paired.
3. Runs are compared at the steps at which all of them logged the metric.
"""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError, InputError
from flowtracer.folders import LineFile
from flowtracer.rl.checkpoints import in_order
from flowtracer.study.results import COSTS, Document, load_results

LOG, STATE = "log.jsonl", "trainer_state.json"

_SEED = re.compile(r"seed[-_= ]?(\d+)", re.IGNORECASE)
_NO_METRIC = {"step", "max_steps", "time"}
"""Numbers of a logged line that measure nothing."""

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run's log."""

    folder: Path
    lines: Lines
    points: Mapping[int, float]
    """The metric by step, where it is a finite number."""

    @property
    def seed(self) -> str | None:
        """As the path says it, the last part that does."""
        found = [match for part in self.folder.parts if (match := _SEED.search(part))]
        return str(int(found[-1].group(1))) if found else None


def gather(groups: Mapping[str, Sequence[str]], *, metric: str, name: str, baseline: str | None = None) -> Document:
    """What `compare_runs` compares, and what a results file keeps of it.

    Args:
        groups: Folders or patterns of folders by label. A folder that is no run stands for the runs in it.
        metric: As logs call it, such as "reward" or "eval_loss".
        name: Of the comparison.
        baseline: Label that others are compared to; the first unless given.

    Raises:
        InputError: Fewer than two labels, an unknown baseline, a label without a run that can be read, a metric that no
            run has logged, or no step at which all have.
    """
    if len(groups) < 2:
        raise InputError(f"expected two labels or more, each with its runs, got {', '.join(groups) or 'none'}")
    baseline = next(iter(groups)) if baseline is None else baseline
    if baseline not in groups:
        raise InputError(f"expected a baseline among {', '.join(groups)}, got {baseline!r}")
    notes: list[str] = []
    read = {
        label: [_read(folder, metric, notes) for folder in _folders(label, asked)] for label, asked in groups.items()
    }
    found = {label: [run for run in runs if run is not None] for label, runs in read.items()}
    _refuse_missing(found, metric, notes)
    runs = {label: [run for run in kept if run.points] for label, kept in found.items()}
    notes += [f"{run.folder}: logs no {metric}, skipped" for kept in found.values() for run in kept if not run.points]
    chosen, paired = _chosen(runs, notes)
    steps = _shared_steps(chosen, metric, notes)
    notes += [f"{label} has one run, and so no interval" for label, kept in chosen.items() if len(kept) == 1]
    return {
        "study": name,
        "baseline": baseline,
        "metric": metric,
        "paired": paired,
        "notes": notes,
        "runs": {
            label: {"seeds": {key: _curves(run, steps) for key, run in kept.items()}} for label, kept in chosen.items()
        },
    }


def refuse_study(file: Path) -> None:
    """Raise where a file holds what cannot be made again from logs: a study's results.

    Raises:
        InputError: Such a file.
        FormatError: Another kind of file.
    """
    if file.exists() and "metric" not in load_results(file):
        raise InputError(f"expected a name of its own for runs that are compared, got that of a study, {str(file)!r}")


def _folders(label: str, asked: Iterable[str]) -> list[Path]:
    """Runs that folders and patterns stand for, each once."""
    found: dict[Path, Path] = {}
    for pattern in asked:
        for path in sorted(Path(match) for match in glob.glob(pattern)):  # noqa: PTH207 - of a path that may be absolute
            inside = [path] if _logs(path) else sorted(child for child in path.glob("*/") if _logs(child))
            found |= {folder.resolve(): folder for folder in inside}
    if not found:
        raise InputError(
            f"expected output folders of a trainer, with {LOG}, {STATE} or checkpoints, got none for {label!r} at "
            f"{', '.join(asked)}"
        )
    return list(found.values())


def _logs(folder: Path) -> list[Path]:
    """Files that may hold a run's log, the most complete first."""
    checkpoints = in_order(folder) if folder.is_dir() else []
    places = [folder / LOG, folder / STATE, *(checkpoint / STATE for checkpoint in reversed(checkpoints))]
    return [place for place in places if place.is_file()]


def _read(folder: Path, metric: str, notes: list[str]) -> Run | None:
    for file in _logs(folder):
        try:
            lines = LineFile(file).lines() if file.name == LOG else _history(file)
        except (OSError, FormatError) as error:
            notes.append(f"{file}: damaged: {error}")
            continue
        points = {line["step"]: float(line[metric]) for line in lines if metric in _measured(line)}
        return Run(folder=folder, lines=lines, points=points)
    notes.append(f"{folder}: no log that can be read, skipped")
    return None


def _history(file: Path) -> Lines:
    try:
        lines = json.loads(file.read_bytes())["log_history"]
        if not all(isinstance(line["step"], int) for line in lines):
            raise TypeError("a step that is no whole number")
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(f"expected the state of a trainer with its log_history, got {error!r}") from error
    return list(lines)


def _measured(line: Mapping[str, Any]) -> Iterator[str]:
    """Names of what a line measures: numbers that are finite."""
    for name, value in line.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and name not in _NO_METRIC and "step" in line and math.isfinite(value):
            yield name


def _refuse_missing(found: Mapping[str, Sequence[Run]], metric: str, notes: Sequence[str]) -> None:
    for label, runs in found.items():
        if not runs:
            raise InputError(f"expected a run of {label!r} with a log that can be read, got none: {'; '.join(notes)}")
        if not any(run.points for run in runs):
            names = sorted({name for run in runs for line in run.lines for name in _measured(line)})
            raise InputError(
                f"expected a metric that runs of {label!r} have logged, got {metric!r}; they have "
                f"{', '.join(names) or 'none'}"
            )


def _chosen(runs: Mapping[str, Sequence[Run]], notes: list[str]) -> tuple[dict[str, dict[str, Run]], bool]:
    """Runs by label and seed, and whether they are paired; unpaired ones are counted through."""
    by_seed = {label: {run.seed: run for run in kept} for label, kept in runs.items()}
    shared = set.intersection(*(set(seeds) for seeds in by_seed.values()))
    told_apart = all(None not in by_seed[label] and len(by_seed[label]) == len(kept) for label, kept in runs.items())
    if told_apart and (len(shared) > 1 or (all(len(kept) == 1 for kept in runs.values()) and shared)):
        alone = [run for seeds in by_seed.values() for seed, run in seeds.items() if seed not in shared]
        notes += [f"{run.folder}: seed {run.seed} is not among those of every label, left out" for run in alone]
        keys = sorted((seed for seed in shared if seed is not None), key=int)
        return {label: {key: seeds[key] for key in keys} for label, seeds in by_seed.items()}, True
    why = "labels share too few seeds" if told_apart else "not every run has a seed of its own in its path (seed-0 ...)"
    notes.append(f"differences are not paired: {why}")
    return {label: {str(number): run for number, run in enumerate(kept)} for label, kept in runs.items()}, False


def _shared_steps(chosen: Mapping[str, Mapping[str, Run]], metric: str, notes: list[str]) -> list[int]:
    runs = [run for kept in chosen.values() for run in kept.values()]
    every = set.union(*(set(run.points) for run in runs))
    shared = sorted(set.intersection(*(set(run.points) for run in runs)))
    fewest = min(runs, key=lambda run: len(run.points))
    if not shared:
        raise InputError(
            f"expected a step at which every run has logged {metric!r}, got none; {fewest.folder} has it at "
            f"{len(fewest.points)} steps, {min(fewest.points)} to {max(fewest.points)}"
        )
    if len(shared) < len(every):
        notes.append(
            f"steps differ: compared at the {len(shared)} of {len(every)} that all have logged, {shared[0]} to "
            f"{shared[-1]}; fewest are {len(fewest.points)} to {max(fewest.points)} in {fewest.folder}"
        )
    return shared


def _curves(run: Run, steps: Sequence[int]) -> Document:
    costs = {
        name: [
            [line["step"], line[field]] for line in run.lines if field in _measured(line) and line["step"] <= steps[-1]
        ]
        for name, (field,) in COSTS.items()
    }
    return {
        "folder": str(run.folder),
        "steps": steps[-1],
        "values": [[step, run.points[step]] for step in steps],
        **costs,
    }
