"""What runs show side by side: a curve of each with intervals over seeds, and differences to a baseline.

1. Of a study, only seeds that every run has done count, and all of them must have taken the same steps over the same
   share of the training problems, as their logs say.
2. *Final* is the value after the last step, *average* its mean over the whole curve by the trapezoid rule: how
   fast a run learned, and less noisy.
3. A seed fixes the prompts' order and the first draws, so differences to the baseline are paired by seed; runs from
   elsewhere that share none are compared without. `statistics.py` says how, and corrects p-values for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from flowtracer.errors import InputError
from flowtracer.intervals import Interval
from flowtracer.shapes import Float, ndarray
from flowtracer.study.results import Document, RunCurves
from flowtracer.study.statistics import Difference, difference, holm, mean_heights, student_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run over all seeds; differences are to the baseline, which has none."""

    label: str
    values_SN: Float[ndarray, "S N"]
    """What is compared, by seed and step; of a study, held-out accuracy."""
    final: Interval
    average: Interval
    final_difference: Interval | None
    average_difference: Interval | None
    p: float | None
    """Of the final difference, by the t-test; NaN with one seed."""
    p_corrected: float | None
    response_tokens: float
    """Mean length of the sampled responses."""
    step_seconds: float
    credit_seconds: float
    """Seconds of a step, and of what credit takes of it. NaN, as are the tokens, where logs do not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyComparison:
    """Runs side by side."""

    study: str
    baseline: str
    metric: str | None
    """What is compared, as the logs call it; None for a study's held-out accuracy."""
    paired: bool
    seeds: Sequence[int]
    """Those that differences are paired by; none where they are not."""
    steps: int
    epochs: float | None
    """Passes over the training problems, where they are the same for all."""
    evaluated_N: Float[ndarray, " N"]
    """Steps after which it was measured."""
    problems: int | None
    """Held-out problems, of a study."""
    notes: Sequence[str]
    """What was left out, and why."""
    machines: Sequence[str]
    dates: Sequence[str]
    runs: Sequence[ComparedRun]

    @property
    def base(self) -> ComparedRun:
        """The run that others are held against."""
        return next(run for run in self.runs if run.label == self.baseline)

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, ready for JSON."""
        runs = [{**asdict(run), "values_SN": run.values_SN.tolist()} for run in self.runs]
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return named | {"evaluated_N": self.evaluated_N.tolist(), "runs": runs}


def compare_runs(document: Document) -> StudyComparison:
    """Compare the runs of a study's results, or of logs that `logs.py` has read.

    Raises:
        InputError: No seed that every run has done, or runs whose steps, problems or evaluations differ.
    """
    runs, paired = document["runs"], document.get("paired", True)
    if not runs:
        raise InputError(f"expected runs in the results of {document['study']!r}, got none")
    shared = _shared_seeds(runs) if paired else []
    curves = {label: [run["seeds"][seed] for seed in shared or run["seeds"]] for label, run in runs.items()}
    metric = document.get("metric")
    measured = "held_out" if metric is None else "values"
    refuse_unequal(document["study"], measured, curves)
    first = curves[document["baseline"]][0]
    evaluated_N = np.array([float(point[0]) for point in first[measured]])
    values = {label: np.array([_column(curve, measured) for curve in found]) for label, found in curves.items()}
    machines = [curve["machine"] for found in curves.values() for curve in found if "machine" in curve]
    options = runs[document["baseline"]].get("options", {})
    return StudyComparison(
        study=document["study"],
        baseline=document["baseline"],
        metric=metric,
        paired=paired,
        seeds=[int(seed) for seed in shared],
        steps=first["steps"],
        epochs=first.get("epochs"),
        evaluated_N=evaluated_N,
        problems=options.get("evaluation", {}).get("problems"),
        notes=document.get("notes", []),
        machines=sorted({f"{m['gpu'] or m['processor']}, {m['cores']} cores, torch {m['torch']}" for m in machines}),
        dates=sorted({machine["date"] for machine in machines}),
        runs=_compared(curves, values, evaluated_N, document["baseline"], paired=paired),
    )


def refuse_unequal(study: str, measured: str, curves: Mapping[str, Sequence[RunCurves]]) -> None:
    """Raise unless all runs took the same steps over the same share of the problems and were evaluated alike.

    Raises:
        InputError: Names a run that differs from the first.
    """
    (reference_label, (reference, *_)), *_ = curves.items()
    for label, found in curves.items():
        for curve in found:
            for what in ("steps", "epochs"):
                if curve.get(what) != reference.get(what):
                    raise InputError(
                        f"expected runs of equal {what} in {study!r}, got {reference[what]} by {reference_label!r} and "
                        f"{curve[what]} by {label!r}; delete what is of another length and run it again"
                    )
            places, expected = ([point[0] for point in c[measured]] for c in (curve, reference))
            if places != expected:
                raise InputError(f"expected evaluations after the steps {expected} in {study!r}, got {places}")


def _shared_seeds(runs: Mapping[str, Document]) -> list[str]:
    shared = sorted(set.intersection(*(set(run["seeds"]) for run in runs.values())), key=int)
    if not shared:
        missing = ", ".join(label for label, run in runs.items() if not run["seeds"]) or "others"
        raise InputError(f"expected a seed that every run has done, got none by {missing}; run the study to its end")
    return shared


def _compared(
    curves: Mapping[str, Sequence[RunCurves]],
    values: Mapping[str, Float[ndarray, "S N"]],
    evaluated_N: Float[ndarray, " N"],
    baseline: str,
    *,
    paired: bool,
) -> list[ComparedRun]:
    finals = {label: values_SN[:, -1] for label, values_SN in values.items()}
    averages = {label: mean_heights(values_SN, evaluated_N) for label, values_SN in values.items()}

    def over_baseline(quantity: Mapping[str, Float[ndarray, " S"]], label: str) -> Difference | None:
        return None if label == baseline else difference(quantity[label], quantity[baseline], paired=paired)

    final_differences = {label: over_baseline(finals, label) for label in values}
    average_differences = {label: over_baseline(averages, label) for label in values}
    p = {label: found.p for label, found in final_differences.items() if found is not None}
    corrected = holm(p)
    return [
        ComparedRun(
            label=label,
            values_SN=values[label],
            final=student_interval(finals[label]),
            average=student_interval(averages[label]),
            final_difference=None if (final := final_differences[label]) is None else final.interval,
            average_difference=None if (average := average_differences[label]) is None else average.interval,
            p=p.get(label),
            p_corrected=corrected.get(label),
            response_tokens=_mean(found, "response_tokens"),
            step_seconds=_mean(found, "step_seconds"),
            credit_seconds=_mean(found, "credit_seconds"),
        )
        for label, found in curves.items()
    ]


def _column(curve: RunCurves, name: str) -> list[float]:
    return [point[1] for point in curve[name]]


def _mean(curves: Sequence[RunCurves], name: str) -> float:
    """Over all logged steps of all seeds; NaN where none says it."""
    values = [value for curve in curves for value in _column(curve, name)]
    return float(np.mean(values)) if values else float("nan")
