"""What a study shows: accuracies with intervals over seeds, and differences to a baseline, paired by seed.

1. Only seeds that every run has done count, and all of them must have taken the same steps over the same share of the
   training problems, as their logs say.
2. *Final* is held-out accuracy after the last step, *average* its mean over the whole curve by the trapezoid rule: how
   fast a run learned, and less noisy.
3. Intervals are Student's over seeds, at 95 %. A seed fixes the prompts' order and the first
   draws, so differences to the baseline are paired by seed: `t = mean / (deviation / sqrt(seeds))`.
4. The p-values of the final differences are corrected for their number by Holm's method: the k-th smallest of m is
   multiplied by m - k + 1, and none is smaller than the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.intervals import LEVEL, Interval
from flowtracer.shapes import Float, ndarray
from flowtracer.study.results import Document, RunCurves

try:
    from scipy import stats
except ImportError as error:
    raise MissingDependencyError(f'expected scipy, got {error}: pip install "flowtracer[report]"') from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run over all seeds; differences are to the baseline, which has none."""

    label: str
    accuracies_SN: Float[ndarray, "S N"]
    """Held-out accuracy by seed and evaluation."""
    final: Interval
    average: Interval
    final_difference: Interval | None
    average_difference: Interval | None
    p: float | None
    """Of the final difference, by the paired t-test; NaN with one seed."""
    p_corrected: float | None
    response_tokens: float
    """Mean length of the sampled responses."""
    step_seconds: float
    credit_seconds: float
    """Seconds of a step, and of what credit takes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyComparison:
    """A study's runs side by side."""

    study: str
    baseline: str
    seeds: Sequence[int]
    steps: int
    epochs: float
    """Passes over the training problems."""
    evaluated_N: Float[ndarray, " N"]
    """Steps after which held-out accuracy was measured."""
    problems: int
    """Held-out problems."""
    machines: Sequence[str]
    dates: Sequence[str]
    runs: Sequence[ComparedRun]


def compare_runs(document: Document) -> StudyComparison:
    """Compare the runs of a study's results.

    Raises:
        InputError: No seed that every run has done, or runs whose steps, problems or evaluations differ.
    """
    runs = document["runs"]
    if not runs:
        raise InputError(f"expected runs in the results of {document['study']!r}, got none")
    shared = sorted(set.intersection(*(set(run["seeds"]) for run in runs.values())), key=int)
    if not shared:
        missing = ", ".join(label for label, run in runs.items() if not run["seeds"]) or "others"
        raise InputError(f"expected a seed that every run has done, got none by {missing}; run the study to its end")
    curves = {label: [run["seeds"][seed] for seed in shared] for label, run in runs.items()}
    refuse_unequal(document["study"], curves)
    accuracies = {label: np.array([_column(curve, "held_out") for curve in found]) for label, found in curves.items()}
    first = curves[document["baseline"]][0]
    evaluated_N = np.array([float(point[0]) for point in first["held_out"]])
    base_SN = accuracies[document["baseline"]]
    others = [label for label in runs if label != document["baseline"]]
    p = {label: paired_p(accuracies[label][:, -1] - base_SN[:, -1]) for label in others}
    corrected = holm(p)

    def compared(label: str) -> ComparedRun:
        found_SN = accuracies[label]
        averages_S, base_averages_S = (_average(values_SN, evaluated_N) for values_SN in (found_SN, base_SN))
        other = label in p
        return ComparedRun(
            label=label,
            accuracies_SN=found_SN,
            final=student_interval(found_SN[:, -1]),
            average=student_interval(averages_S),
            final_difference=student_interval(found_SN[:, -1] - base_SN[:, -1]) if other else None,
            average_difference=student_interval(averages_S - base_averages_S) if other else None,
            p=p.get(label),
            p_corrected=corrected.get(label),
            response_tokens=_mean(curves[label], "response_tokens"),
            step_seconds=_mean(curves[label], "step_seconds"),
            credit_seconds=_mean(curves[label], "credit_seconds"),
        )

    machines = [curve["machine"] for found in curves.values() for curve in found]
    return StudyComparison(
        study=document["study"],
        baseline=document["baseline"],
        seeds=[int(seed) for seed in shared],
        steps=first["steps"],
        epochs=first["epochs"],
        evaluated_N=evaluated_N,
        problems=runs[document["baseline"]]["options"]["evaluation"]["problems"],
        machines=sorted({f"{m['gpu'] or m['processor']}, {m['cores']} cores, torch {m['torch']}" for m in machines}),
        dates=sorted({machine["date"] for machine in machines}),
        runs=[compared(label) for label in runs],
    )


def refuse_unequal(study: str, curves: Mapping[str, Sequence[RunCurves]]) -> None:
    """Raise unless all runs took the same steps over the same share of the problems and were evaluated alike.

    Raises:
        InputError: Names a run that differs from the first.
    """
    (reference_label, (reference, *_)), *_ = curves.items()
    for label, found in curves.items():
        for curve in found:
            for what in ("steps", "epochs"):
                if curve[what] != reference[what]:
                    raise InputError(
                        f"expected runs of equal {what} in {study!r}, got {reference[what]} by {reference_label!r} and "
                        f"{curve[what]} by {label!r}; delete what is of another length and run it again"
                    )
            places, expected = ([point[0] for point in c["held_out"]] for c in (curve, reference))
            if places != expected:
                raise InputError(f"expected evaluations after the steps {expected} in {study!r}, got {places}")


def student_interval(values_N: Float[ndarray, " N"]) -> Interval:
    """Mean over seeds with Student's interval; NaN bounds where there is one seed alone."""
    n = len(values_N)
    half = float("nan")
    if n > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values_N.std(ddof=1) / n**0.5)
    mean = float(values_N.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half, items=n)


def paired_p(differences_N: Float[ndarray, " N"]) -> float:
    """Two-sided p-value of a mean difference of 0, by the t-test; NaN with one seed, 1 where all differences are 0."""
    n = len(differences_N)
    if n < 2:
        return float("nan")
    error = differences_N.std(ddof=1) / n**0.5
    if error == 0:
        return 1.0 if differences_N.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(differences_N.mean()) / error, n - 1))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for their number."""
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest if p[name] == p[name] else p[name]
    return corrected


def _column(curve: RunCurves, name: str) -> list[float]:
    return [point[1] for point in curve[name]]


def _mean(curves: Sequence[RunCurves], name: str) -> float:
    """Over all logged steps of all seeds."""
    return float(np.mean([value for curve in curves for value in _column(curve, name)]))


def _average(values_SN: Float[ndarray, "S N"], places_N: Float[ndarray, " N"]) -> Float[ndarray, " S"]:
    """Mean height of each curve."""
    if len(places_N) == 1:
        return values_SN[:, 0]
    return ((values_SN[:, 1:] + values_SN[:, :-1]) / 2 * np.diff(places_N)).sum(1) / (places_N[-1] - places_N[0])
