"""What is each strategy worth along a training, as the policy and what is decisive change?

    flowtracer train experiments/along.toml
    python experiments/along.py

The meter at nano and at the checkpoints of plain GRPO on Countdown, on one stream of problems. Strategies include the
runs of `runs/prediction.toml`, so that the first row is what `prediction.py` holds against training. Rollouts and
minibatches stay in `runs/along/meter-STEP`; results go to `results/along.json`, `.md`, `.svg` and `.png`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table

from flowtracer.checks.meter import MeterOptions, MeterResult, meter
from flowtracer.checks.meter.worth import UNIFORM
from flowtracer.intervals import Interval
from flowtracer.model.load import load_model
from flowtracer.report.figures.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILLION, WIDTH, save_figure, styled
from flowtracer.report.terminal.meter import meter_summary, percent
from flowtracer.tasks import Countdown
from outcome import RESULTS, write_outcome

TASK = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100)
CREDIT = (
    "uniform,position,correlation,flow,flow:keep=bottom,flow:layers=[4,5],flow:capacity=value,flow:capacity=alti,"
    "flow:graph=layered,capacity=alti,flow_contrast,flow_contrast:graph=layered,capacity=alti,free_flow,attention,"
    "attention_entropy,random"
)
HOW = MeterOptions(max_new_tokens=128, rollouts=4096, minibatches=12, seed=3)
DRAWN = {"position": BLUE, "correlation": GREEN, "flow_contrast": SKY, "flow": INK}
DRAWN |= {"flow:graph=layered,capacity=alti": ORANGE, "attention": VERMILLION, "random": GREY}


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="0,10,20,40", help="whose policies are measured")
    parser.add_argument("--work", type=Path, default=Path("runs/along"))
    options = parser.parse_args()
    found: dict[int, MeterResult] = {}
    for step in map(int, options.steps.split(",")):
        policy = str(options.work / "train" / f"checkpoint-{step}") if step else "nano"
        model, tokenizer = load_model(policy, dtype="float32")
        found[step] = meter(model, tokenizer, TASK, CREDIT, options=HOW, out=options.work / f"meter-{step}")
        print(f"step {step}", *meter_summary(found[step]), sep="\n")
    document = {
        "task": repr(TASK),
        "steps": {
            step: {"truth": asdict(result.truth), "worths": [asdict(worth) for worth in result.worths]}
            for step, result in found.items()
        },
    }
    heading = "Worth along plain GRPO on Countdown"
    print(write_outcome("along", document, [worth_table(found)], heading=heading))
    with styled():
        figure = draw(found)
    for suffix in ("svg", "png"):
        save_figure(figure, RESULTS / f"along.{suffix}")


def worth_table(found: dict[int, MeterResult]) -> Table:
    """Strategies down, steps across, worth over plain GRPO in the plain metric."""
    table = Table("strategy", title="worth over uniform, plain metric, 95 % intervals")
    for step, result in found.items():
        truth = result.truth
        table.add_column(f"step {step}: {truth.accuracy.mean:.0%} right, halves {truth.halves:.2f}", justify="right")
    for name in (worth.name for worth in next(iter(found.values())).worths if worth.kind == "strategy"):
        table.add_row(name, *(percent(worth_of(result, name)) for result in found.values()))
    return table


def worth_of(result: MeterResult, name: str) -> Interval:
    """Of a strategy, in the plain metric; 1 for plain GRPO."""
    return next(worth.plain for worth in result.worths if worth.name == name)


def draw(found: dict[int, MeterResult]) -> Figure:
    """A line a strategy, with its interval at every step."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=0.6)
    for place, (name, colour) in enumerate(DRAWN.items()):
        shifted = [step + 0.35 * (place - len(DRAWN) / 2) for step in found]
        worths = [worth_of(result, name) for result in found.values()]
        mean, low, high = ([100 * (getattr(worth, bound) - 1) for worth in worths] for bound in ("mean", "low", "high"))
        axes.plot(shifted, mean, "o-", color=colour, markersize=3, linewidth=1, label=name)
        axes.vlines(shifted, low, high, color=colour, linewidth=1)
    axes.set_xticks(list(found))
    axes.set_xlabel("steps of plain GRPO")
    axes.set_ylabel(f"worth over {UNIFORM}, percent")
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return figure


if __name__ == "__main__":
    main()
