"""Seconds of a trace by how many run together: different prompts, and groups of responses to one prompt.

    python benchmarks/scaling.py

nano traces worked responses to planted problems, about a hundred tokens each. Settings take turns, the median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp
from flowtracer.tasks import Planted
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.tracer import Tracer
from machine import seconds

SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    options = parser.parse_args()
    tracer = Tracer(*load_model("nano", device="cpu"))
    task = Planted(chains=3, length=4)
    problems = task.problems("test", max(SIZES))
    batches = {
        "different prompts": [Rollout(prompt=p.prompt, response=task.work(p).text) for p in problems],
        "one prompt": [
            Rollout(prompt=problems[0].prompt, response=task.work(problems[0], seed=seed).text)
            for seed in range(max(SIZES))
        ],
    }
    cases = {
        (name, size): lambda rollouts=rollouts[:size]: tracer.trace_batch(rollouts, max_tokens=2**20)
        for name, rollouts in batches.items()
        for size in SIZES
    }
    turns = [{case: seconds(call) for case, call in cases.items()} for _ in range(options.rounds + 1)][1:]
    rows = [
        {
            "rollouts": name,
            "together": size,
            "milliseconds_a_trace": 1000 * statistics.median(turn[name, size] for turn in turns) / size,
            "alone_over_together": statistics.median(size * turn[name, 1] / turn[name, size] for turn in turns),
        }
        for name, size in cases
    ]
    table = Table("rollouts", "together", "ms a trace", "times as fast as alone")
    for row in rows:
        table.add_row(
            row["rollouts"],
            str(row["together"]),
            f"{row['milliseconds_a_trace']:.1f}",
            f"{row['alone_over_together']:.1f}",
        )
    Console().print(table)
    result = {"machine": stamp(), "threads": torch.get_num_threads(), "rows": rows}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
