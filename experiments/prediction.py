"""Does the meter predict training? Worth at the first policy against how fast runs learn.

    flowtracer study experiments/runs/prediction.toml     # trains; goes on where it was stopped
    python experiments/along.py                           # what each strategy is worth before training
    python experiments/prediction.py

Outcome: held-out accuracy minus plain GRPO's of the same seed, over the mean of the evaluations after the start (how
fast it learns) and at the last. The meter predicts if strategies keep its order: Spearman's rank correlation over
strategies, with a bootstrap over seeds, and the chance that an order drawn at random does as well (exact). Results go
to `results/prediction_worth.json`, `.md`, `.svg` and `.png`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from flowtracer.checks.ranks import correlation_of, ranks
from flowtracer.intervals import Interval
from flowtracer.report.figures.style import GREY, INK, WIDTH, save_figure, styled
from flowtracer.report.terminal.meter import number, percent
from flowtracer.study.differences import compare_runs
from flowtracer.study.results import load_results
from flowtracer.study.statistics import student_interval
from outcome import RESULTS, write_outcome

MEASURED_AS = {"flow_bottom": "flow:keep=bottom", "flow_late": "flow:layers=[4,5]"}
"""Runs of the study whose strategy the meter knows by another name."""
DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One strategy."""

    label: str
    worth: Interval
    speed_S: np.ndarray
    """Gain over plain GRPO by seed, in the mean of the evaluations after the start."""
    last_S: np.ndarray
    """The same in the last evaluation."""


def main() -> None:
    """Compare, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=RESULTS / "prediction.json")
    parser.add_argument("--worth", type=Path, default=RESULTS / "along.json")
    options = parser.parse_args()
    points = read_points(options.study, options.worth)
    agreement = {
        what: rank_agreement(np.array([p.worth.mean for p in points]), np.stack([getattr(p, what) for p in points]))
        for what in ("speed_S", "last_S")
    }
    document = {
        "agreement": agreement,
        "points": [
            {"label": p.label, "worth": p.worth.mean, "speed": p.speed_S.tolist(), "last": p.last_S.tolist()}
            for p in points
        ],
    }
    tables = [point_table(points), agreement_table(agreement)]
    print(write_outcome("prediction_worth", document, tables, heading="Worth at the first policy against training"))
    with styled():
        figure = draw(points, agreement["speed_S"])
    for suffix in ("svg", "png"):
        save_figure(figure, RESULTS / f"prediction_worth.{suffix}")


def read_points(study: Path, worth: Path) -> list[Point]:
    """Every strategy but plain GRPO, the most worth first, over the seeds that all runs have done."""
    comparison = compare_runs(load_results(study))
    worths = {row["name"]: row["plain"] for row in json.loads(worth.read_text())["steps"]["0"]["worths"]}
    base_SN = next(run.values_SN for run in comparison.runs if run.label == comparison.baseline)
    points = [
        Point(
            label=run.label,
            worth=Interval(**worths[MEASURED_AS.get(run.label, run.label)]),
            speed_S=(run.values_SN - base_SN)[:, 1:].mean(1),
            last_S=(run.values_SN - base_SN)[:, -1],
        )
        for run in comparison.runs
        if run.label != comparison.baseline
    ]
    return sorted(points, key=lambda point: -point.worth.mean)


def rank_agreement(worth_C: np.ndarray, gains_CS: np.ndarray) -> dict[str, float]:
    """Spearman's correlation over strategies, its interval over seeds, and the share of all orders that do as well."""
    rank_C = ranks(worth_C)
    whole = correlation_of(rank_C, ranks(gains_CS.mean(1)))
    generator = np.random.default_rng(0)
    seeds_DS = generator.integers(0, gains_CS.shape[1], (DRAWS, gains_CS.shape[1]))
    drawn_D = [correlation_of(rank_C, ranks(gains_CS[:, seeds_S].mean(1))) for seeds_S in seeds_DS]
    low, high = np.nanquantile(drawn_D, [0.025, 0.975])
    orders = np.array(list(itertools.permutations(ranks(gains_CS.mean(1)))))
    centred_C = rank_C - rank_C.mean()
    as_well = (orders - orders.mean(1, keepdims=True)) @ centred_C
    reached = centred_C @ ranks(gains_CS.mean(1))
    p = float((as_well >= reached - 1e-9).mean())
    return {"rho": whole, "low": float(low), "high": float(high), "p": p, "seeds": gains_CS.shape[1]}


def point_table(points: list[Point]) -> Table:
    """Worth beside gains, in points of accuracy with Student's intervals over seeds."""
    seeds = len(points[0].speed_S)
    table = Table("strategy", title=f"{seeds} seeds; gains over plain GRPO in points of held-out accuracy")
    for header in ("worth at step 0", "gain in the mean curve", "gain at the last step"):
        table.add_column(header, justify="right")
    for point in points:
        gains = [number(student_interval(100 * gains_S), "+") for gains_S in (point.speed_S, point.last_S)]
        table.add_row(point.label, percent(point.worth), *gains)
    return table


def agreement_table(agreement: dict[str, dict[str, float]]) -> Table:
    """How far the orders agree."""
    table = Table("gain in", "rank correlation with worth", "share of all orders that do as well", title="agreement")
    for what, name in (("speed_S", "the mean curve"), ("last_S", "the last step")):
        found = agreement[what]
        table.add_row(name, f"{found['rho']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]", f"{found['p']:.4f}")
    return table


def draw(points: list[Point], agreement: dict[str, float]) -> Figure:
    """Worth across, gain up, both with intervals."""
    figure = Figure(figsize=(0.75 * WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6)
    for point in points:
        mean, low, high = (100 * (value - 1) for value in (point.worth.mean, point.worth.low, point.worth.high))
        gain = student_interval(100 * point.speed_S)
        axes.plot([low, high], [gain.mean] * 2, color=INK, linewidth=0.8)
        axes.plot([mean] * 2, [gain.low, gain.high], color=INK, linewidth=0.8)
        axes.plot(mean, gain.mean, "o", color=INK, markersize=3.5)
        axes.annotate(point.label, (mean, gain.mean), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("worth over plain GRPO at the first policy, percent")
    axes.set_ylabel("gain in the mean curve, points")
    axes.set_title(f"rank correlation {agreement['rho']:+.2f} [{agreement['low']:+.2f}, {agreement['high']:+.2f}]")
    return figure


if __name__ == "__main__":
    main()
