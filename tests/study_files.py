"""Study files and results for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STUDY = """
model = "{model}"

[matrix]
seeds = {seeds}
baseline = "{baseline}"
credit = [{credit}]

[task]
name = "{task}"
problems = 8
options = {{ max_numbers = 3 }}

[evaluation]
problems = {problems}
every = 1
max_new_tokens = 6

[grpo]
max_steps = {steps}
per_device_train_batch_size = 4
num_generations = 2
max_completion_length = 6
save_steps = 1
save_total_limit = 1
learning_rate = 1e-3
"""


def write_study(folder: Path, *, name: str = "small", **changes: Any) -> Path:
    """A study of two strategies, two seeds and two steps."""
    file = folder / f"{name}.toml"
    fields = {
        "model": "m",
        "seeds": 2,
        "baseline": "uniform",
        "credit": '{ name = "uniform" }, { name = "flow" }',
        "task": "countdown",
        "problems": 4,
        "steps": 2,
    }
    file.write_text(STUDY.format(**fields | changes))
    return file


MACHINE = {"date": "2026-01-02", "processor": "abacus", "cores": 2, "gpu": None, "torch": "2"}


def document_of(accuracies: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Results out of held-out accuracies by run, seed and evaluation, every ten steps."""
    runs = {
        label: {
            "options": {"evaluation": {"problems": 100}},
            "seeds": {str(seed): _curve(values) for seed, values in enumerate(by_seed)},
        }
        for label, by_seed in accuracies.items()
    }
    return {"study": "small", "baseline": next(iter(accuracies)), "runs": runs}


def _curve(values: list[float]) -> dict[str, Any]:
    last = 10 * (len(values) - 1)
    return {
        "machine": MACHINE,
        "steps": last,
        "epochs": last / 64,
        "tokens": 1000,
        "held_out": [[10 * place, value, value - 0.1, value + 0.1] for place, value in enumerate(values)],
        "reward": [[1, 0.5]],
        "step_seconds": [[1, 2.0], [2, 4.0]],
        "credit_seconds": [[1, 0.1], [2, 0.2]],
        "response_tokens": [[1, 30.0]],
    }
