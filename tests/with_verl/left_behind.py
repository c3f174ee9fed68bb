"""What a run of `run_step.py` leaves behind, and credit computed anew on it.

    python tests/with_verl/left_behind.py RUNS > benchmarks/results/verl_run.json

RUNS holds the folders "stock", "uniform" and "flow", as `pytest --basetemp` keeps them.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import flowtracer as ft
from flowtracer.model.load import load_model
from flowtracer.study.machine import stamp

VERSIONS = ("verl", "ray", "TransferQueue", "tensordict", "torch", "transformers")


def weights(folder, step):
    """As verl hands them to the engine that samples, after so many steps."""
    return load_file(folder / f"weights-{step}.safetensors")


def batch(folder, step):
    """Each field of the batch that the policy was updated on, a tensor a response."""
    fields: dict[str, list[torch.Tensor]] = {}
    for key, value in sorted(load_file(folder / f"batch-{step}.safetensors").items()):
        fields.setdefault(key.split("/")[0], []).append(value)
    return fields


def metrics(folder, step):
    """As verl logs them."""
    return json.loads((folder / f"metrics-{step}.json").read_text())


def own_advantages(got):
    """GRPO's, of the rewards in groups of equal prompts, as verl computes them."""
    rewards = torch.stack([row.sum() for row in got["rm_scores"]])
    keys = [tuple(ids.tolist()) for ids in got["prompts"]]
    own = []
    for key, reward in zip(keys, rewards, strict=True):
        group = rewards[[other == key for other in keys]]
        own.append(float((reward - group.mean()) / (group.std() + 1e-6)))
    return own


def credited(folder, step, credit="flow"):
    """What `ft.credit_weights` gives on the batch, with the weights that verl's workers had."""
    got = batch(folder, step)
    model, tokenizer = load_model("nano")
    model.load_state_dict(weights(folder, step - 1), strict=False)
    prompts, responses = ([ids.tolist() for ids in got[name]] for name in ("prompts", "responses"))
    return ft.credit_weights(model, tokenizer, prompts, responses, own_advantages(got), credit)


def apart(some, others):
    """The largest difference between weights."""
    return max(float((some[name] - others[name]).abs().max()) for name in some)


def record(runs: Path) -> dict[str, object]:
    """Versions and figures of three runs."""
    steps = range(1, len(list((runs / "flow").glob("metrics-*.json"))) + 1)
    off = []
    for step in steps:
        expected = credited(runs / "flow", step)
        rows = enumerate(batch(runs / "flow", step)["advantages"])
        off += [float((row_R - expected.advantages_BR[row, : len(row_R)]).abs().max()) for row, row_R in rows]
    kept = ("credit/", "critic/score/mean", "response_length/mean", "actor/pg_loss", "actor/grad_norm")
    last = steps[-1]
    return {
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "machine": stamp(),
        "steps": len(steps),
        "responses_a_step": len(batch(runs / "flow", last)["responses"]),
        "uniform_from_stock": apart(weights(runs / "uniform", last), weights(runs / "stock", last)),
        "flow_from_stock": apart(weights(runs / "flow", last), weights(runs / "stock", last)),
        "moved": apart(weights(runs / "flow", last), weights(runs / "flow", 0)),
        "advantages_from_credit_weights": max(off),
        "metrics": [
            {name: value for name, value in metrics(runs / "flow", step).items() if name.startswith(kept)}
            for step in steps
        ],
    }


if __name__ == "__main__":
    print(json.dumps(record(Path(sys.argv[1])), indent=1))
