"""Tables and pictures out of results: learning curves, final accuracies, paired differences to a baseline.

    python experiments/report.py countdown uniform random flow flow_bottom

The results of the run files `runs/STUDY_NAME.toml` are compared, to the first name as the baseline. Intervals are
Student's over seeds, at 95 %; differences are paired by seed, and their p-values are corrected for the number of
comparisons by Holm's method. Writes `results/STUDY.md`, `.svg` and `.png`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

RESULTS = Path(__file__).with_name("results")
# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")


def main() -> None:
    """Write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("names", nargs="+")
    options = parser.parse_args()
    study, names = options.study, options.names
    documents = {name: json.loads((RESULTS / f"{study}_{name}.json").read_text()) for name in names}
    # Only seeds that every run has done, so that differences are paired.
    seeds = sorted(set.intersection(*(set(document["seeds"]) for document in documents.values())), key=int)
    curves = {name: held_out(document, seeds) for name, document in documents.items()}
    text = table(curves, documents, seeds)
    (RESULTS / f"{study}.md").write_text(text)
    print(text)
    plot(curves, study, len(seeds))


def held_out(document: dict[str, Any], seeds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N,) and held-out accuracies (seeds, N)."""
    points = [document["seeds"][seed]["held_out"] for seed in seeds]
    return np.array([point[0] for point in points[0]]), np.array([[point[1] for point in run] for run in points])


def table(
    curves: dict[str, tuple[np.ndarray, np.ndarray]], documents: dict[str, dict[str, Any]], seeds: list[str]
) -> str:
    """Final accuracy of each run and its difference to the first, in Markdown."""
    baseline, *others = curves
    finals = {name: accuracies[:, -1] for name, (_, accuracies) in curves.items()}
    corrected = holm({name: float(stats.ttest_rel(finals[name], finals[baseline]).pvalue) for name in others})
    lines = [
        f"Held-out accuracy after {curves[baseline][0][-1]} steps, {len(seeds)} seeds, mean and 95 % interval over "
        f"seeds; before training {curves[baseline][1][:, 0].mean():.1%}.",
        "",
        f"| run | accuracy | minus {baseline}, paired | p (Holm) | seconds a step | in credit |",
        "|---|---|---|---|---|---|",
    ]
    for name in curves:
        difference = "" if name == baseline else interval(finals[name] - finals[baseline])
        p = "" if name == baseline else f"{corrected[name]:.2f}"
        step, credit = (mean_of(documents[name], seeds, what) for what in ("step_seconds", "credit_seconds"))
        lines.append(f"| {name} | {interval(finals[name])} | {difference} | {p} | {step:.2f} | {credit / step:.1%} |")
    return "\n".join(lines) + "\n"


def interval(values: np.ndarray) -> str:
    """Mean in per cent with Student's interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{100 * values.mean():.1f} % [{100 * (values.mean() - half):.1f}, {100 * (values.mean() + half):.1f}]"


def holm(p: dict[str, float]) -> dict[str, float]:
    """p-values corrected for their number."""
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest
    return corrected


def mean_of(document: dict[str, Any], seeds: list[str], what: str) -> float:
    """Mean over all logged steps of the seeds."""
    return float(np.mean([value for seed in seeds for _, value in document["seeds"][seed][what]]))


def plot(curves: dict[str, tuple[np.ndarray, np.ndarray]], study: str, seeds: int) -> None:
    """Mean curves with their intervals."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for (name, (steps, accuracies)), colour in zip(curves.items(), COLOURS, strict=False):
        mean = 100 * accuracies.mean(0)
        half = 100 * stats.t.ppf(0.975, seeds - 1) * accuracies.std(0, ddof=1) / seeds**0.5
        label = name.replace("_", " ")
        axes.plot(steps, mean, color=colour, label=label, marker="o", markersize=3)
        axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="GRPO steps", ylabel="held-out accuracy, greedy (%)")
    axes.set_title(f"{study.replace('_', ' ')}: mean of {seeds} seeds, 95 % interval", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    for suffix in ("svg", "png"):
        figure.savefig(RESULTS / f"{study}.{suffix}", dpi=150)


if __name__ == "__main__":
    main()
