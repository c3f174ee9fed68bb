"""Is the picture true? Every strategy and signal against planted truth, with nano.

    python experiments/faithfulness.py --problems 300

Planted problems as nano knows them, harder ones, and Countdown; tables to `results/faithfulness_TASK.json` and `.md`.
Beside the strategies with their default options stands flow that ends where the answer is predicted, in the middle
layers and in the early ones. Other models and tasks: `flowtracer faithfulness`.
"""

from __future__ import annotations

import argparse

from rich.progress import Progress

from flowtracer.checks.planted import faithfulness, strategies_by_name
from flowtracer.checks.planted.bands import layer_bands
from flowtracer.credit import make_credit
from flowtracer.model.load import load_model
from flowtracer.report.terminal.planted import faithfulness_tables
from flowtracer.tasks import Countdown, Planted, WorkedTask
from outcome import write_outcome

TASKS: dict[str, WorkedTask] = {
    "planted": Planted(chains=2, length=3),
    "planted_long": Planted(chains=2, length=4),
    "planted_wide": Planted(chains=3, length=4),
    "countdown": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
}


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--tasks", default=",".join(TASKS))
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    early = list(layer_bands(model.config.num_hidden_layers)["early"])
    strategies = strategies_by_name() | {
        "flow at prediction": make_credit("flow", {"at": "prediction"}),
        "flow at prediction, early": make_credit("flow", {"at": "prediction", "layers": early}),
    }
    for name in options.tasks.split(","):
        task = TASKS[name]
        problems = task.problems("test", options.problems)
        with Progress() as progress:
            bar = progress.add_task(name, total=len(problems))
            result = faithfulness(
                model,
                tokenizer,
                task,
                problems,
                strategies=strategies,
                bands=True,
                on_problems=lambda done, bar=bar, progress=progress: progress.advance(bar, done),
            )
        document = {"model": options.model, "task": repr(task), **result.to_dict()}
        print(write_outcome(f"faithfulness_{name}", document, faithfulness_tables(result), heading=repr(task)))


if __name__ == "__main__":
    main()
