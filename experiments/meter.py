"""What is each strategy worth, at nano's policy?

    python experiments/meter.py --tasks countdown

Against the true gradient, on the task that the demo trains on, and on planted problems; tables and figure to
`results/meter_TASK.*`. Rollouts, gradients and minibatches stay in `runs/meter/TASK`, and a run that was interrupted
goes on. Other models and tasks: `flowtracer meter`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flowtracer.checks.meter import MeterOptions, meter
from flowtracer.model.load import load_model
from flowtracer.report.figures.meter import write_worth
from flowtracer.report.terminal.meter import meter_summary, meter_tables
from flowtracer.tasks import Countdown, Planted, Task
from outcome import RESULTS, write_outcome

TASKS: dict[str, tuple[Task, MeterOptions]] = {
    "countdown": (
        Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
        MeterOptions(max_new_tokens=128),
    ),
    "planted": (Planted(chains=2, length=3), MeterOptions(max_new_tokens=128, rollouts=2048, minibatches=8)),
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--work", type=Path, default=Path("runs/meter"))
    options = parser.parse_args()
    for name in options.tasks.split(","):
        task, how = TASKS[name]
        result = meter(*load_model(options.model, dtype="float32"), task, options=how, out=options.work / name)
        heading = f"{result.task}: {result.truth.verdict()}"
        print(*meter_summary(result), sep="\n")
        print(write_outcome(f"meter_{name}", result.to_dict(), meter_tables(result), heading=heading))
        if not result.truth.silent:
            write_worth(result, RESULTS, f"meter_{name}")


if __name__ == "__main__":
    main()
