"""What is each strategy worth, at the policies of nano and nano-forks?

    python experiments/meter.py --tasks countdown

Against the true gradient: nano on the task that the demo trains on, on another stream of it that chose nothing, and on
planted problems; nano-forks where the decisive tokens stand early, in the middle, late or scattered. Tables and figures
go to `results/meter_TASK.*`. Rollouts, gradients and minibatches stay in `runs/meter/TASK`, and a run that was
interrupted goes on. Other models and tasks: `flowtracer meter`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flowtracer.checks.meter import MeterOptions, meter
from flowtracer.model.load import load_model
from flowtracer.report.figures.meter import write_worth
from flowtracer.report.terminal.meter import meter_summary, meter_tables
from flowtracer.tasks import Countdown, Forks, Planted, Task
from flowtracer.tasks.forks import PLACES
from outcome import RESULTS, write_outcome

SEEN = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100)
FORKS = MeterOptions(max_new_tokens=80, rollouts=2048, minibatches=12)
CHEAP = (
    "uniform,position,flow,flow:keep=bottom,flow:graph=layered,capacity=alti,flow_contrast,correlation,likelihood_gain,"
    "attention,attention_entropy,local,gradient,entropy_8020,delta,random"
)
TASKS: dict[str, tuple[str, Task, str, MeterOptions]] = {
    "countdown": ("nano", SEEN, "all", MeterOptions(max_new_tokens=128)),
    "countdown_again": (
        "nano",
        SEEN,
        "uniform,position,correlation,likelihood_gain,attention_entropy,local,flow",
        MeterOptions(max_new_tokens=128, rollouts=4096, minibatches=12, seed=1),
    ),
    "planted": (
        "nano",
        Planted(chains=2, length=3),
        "all",
        MeterOptions(max_new_tokens=128, rollouts=2048, minibatches=8),
    ),
    **{f"forks_{place}": ("nano-forks", Forks(place=place), CHEAP, FORKS) for place in PLACES},
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--work", type=Path, default=Path("runs/meter"))
    options = parser.parse_args()
    for name in options.tasks.split(","):
        model, task, credit, how = TASKS[name]
        result = meter(*load_model(model, dtype="float32"), task, credit, options=how, out=options.work / name)
        heading = f"{result.task}: {result.truth.verdict()}"
        print(*meter_summary(result), sep="\n")
        print(write_outcome(f"meter_{name}", result.to_dict(), meter_tables(result), heading=heading))
        if not result.truth.silent:
            write_worth(result, RESULTS, f"meter_{name}")


if __name__ == "__main__":
    main()
