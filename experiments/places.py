"""Which strategies are worth something wherever the decisive tokens stand?

    python experiments/meter.py --tasks forks_early,forks_middle,forks_late,forks_scattered
    python experiments/places.py

The worth of each at the four places of forks, and its mean over them. The places are measured apart, so the mean's
interval follows from theirs by the method of variance estimates recovery (Zou and Donner, 2008): on each side the
distances to the means are added in squares. Results go to `results/meter_forks.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from flowtracer.intervals import Interval
from flowtracer.report.terminal.meter import percent
from flowtracer.tasks.forks import PLACES
from outcome import RESULTS, write_outcome


def main() -> None:
    """Read, average, print and write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    worths = [read_worths(place) for place in PLACES]
    by_place = {name: [worth[name] for worth in worths] for name in worths[0] if all(name in of for of in worths)}
    means = {name: mean_of(intervals) for name, intervals in by_place.items()}
    ranked = sorted(means, key=lambda name: -means[name].mean)
    document = {
        name: {"mean": asdict(means[name])} | dict(zip(PLACES, map(asdict, by_place[name]), strict=True))
        for name in ranked
    }
    table = Table("strategy", *PLACES, "mean of the four", title="worth over uniform, plain metric, 95 % intervals")
    for name in ranked:
        table.add_row(name, *(percent(worth) for worth in (*by_place[name], means[name])))
    print(write_outcome("meter_forks", {"worths": document}, [table], heading="Worth by the place of the forks"))


def read_worths(place: str) -> dict[str, Interval]:
    """Of every strategy at one place; ceilings, which see the truth that measures them, are left out."""
    rows = json.loads((RESULTS / f"meter_forks_{place}.json").read_text())["worths"]
    return {row["name"]: Interval(**row["plain"]) for row in rows if row["kind"] == "strategy"}


def mean_of(intervals: Sequence[Interval]) -> Interval:
    """Of independent estimates."""
    mean = sum(interval.mean for interval in intervals) / len(intervals)
    below = math.hypot(*(interval.mean - interval.low for interval in intervals)) / len(intervals)
    above = math.hypot(*(interval.high - interval.mean for interval in intervals)) / len(intervals)
    return Interval(mean=mean, low=mean - below, high=mean + above, items=min(i.items for i in intervals))


if __name__ == "__main__":
    main()
