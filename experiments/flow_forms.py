"""Is there a form of flow that is worth more than place, on tasks that chose nothing?

    python experiments/along.py                       # makes the folder of step 0
    python experiments/flow_forms.py

The meter on Countdown and on forks, where the decisive tokens stand late or in the middle: flow, its contrast between
right and wrong responses, sums of ranks of the two, contrast with its sign, presence in place of flow, and `position`,
with boosts of 1.5, of 3, and as gates. Forms were looked at on Countdown and on late forks; a few were then confirmed
in the middle. Results go to `results/flow_forms.json` and `.md`; folders stay in `runs/forms`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from flowtracer.checks.meter import MeterOptions, MeterResult, meter
from flowtracer.checks.meter.worth import UNIFORM
from flowtracer.credit import BoostCredit, Credit, Signals, make_credit
from flowtracer.credit.base import ranks
from flowtracer.credit.correlation import CorrelationCredit, correlations_with
from flowtracer.credit.flow import FlowCredit
from flowtracer.credit.flow_contrast import FlowContrastCredit, contrast
from flowtracer.credit.position import PositionCredit
from flowtracer.model.load import load_model
from flowtracer.report.terminal.meter import percent
from flowtracer.tasks import Countdown, Forks, Task
from outcome import write_outcome

FORKS = MeterOptions(max_new_tokens=80, rollouts=2048, minibatches=12)
COUNTDOWN = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100)
TASKS: dict[str, tuple[str, Task, MeterOptions]] = {
    "countdown": ("nano", COUNTDOWN, MeterOptions(max_new_tokens=128, rollouts=4096, minibatches=12, seed=3)),
    "forks, late": ("nano-forks", Forks(place="late"), FORKS),
    "forks, middle": ("nano-forks", Forks(place="middle"), FORKS),
}
CONFIRMED = "forks, middle"
GATE = 1e6


def presence(signals: Signals) -> Tensor:
    """Of being there at all, with its sign."""
    found_BR = torch.zeros(signals.mask_BR.shape)
    for group in signals.group.groups_B.unique():
        rows = (signals.group.groups_B == group).nonzero().squeeze(-1)
        vocabulary, index_GR = signals.group.token_ids_BR[rows].unique(return_inverse=True)
        counts_GV = torch.zeros(len(rows), len(vocabulary)).scatter_add_(1, index_GR, signals.mask_BR[rows].float())
        found_BR[rows] = correlations_with(signals.group.rewards_B[rows].float(), (counts_GV > 0).float())[index_GR]
    return found_BR


def unit_ranks(scores_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """1 for the highest score of a response, towards 0 for the lowest."""
    return 1 - ranks(scores_BR, mask_BR).float() / mask_BR.sum(-1, keepdim=True).clamp_min(1)


def both_ranks(scores_BR: Tensor, signals: Signals) -> Tensor:
    """Of the scores and of flow."""
    mask_BR = signals.mask_BR
    return unit_ranks(scores_BR, mask_BR) + unit_ranks(signals.flow.throughput_BR.float(), mask_BR)


def own_side(scores_BR: Tensor, signals: Signals) -> Tensor:
    """High where what a token goes with is what its response is."""
    return scores_BR * signals.advantages_B.sign()[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(FlowContrastCredit):
    """Contrast with its sign."""

    def scores(self, signals: Signals) -> Tensor:
        """On the response's own side."""
        return own_side(contrast(signals), signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPlusFlow(FlowContrastCredit):
    """Contrast with its sign, and flow."""

    def scores(self, signals: Signals) -> Tensor:
        """Both ranks."""
        return both_ranks(own_side(contrast(signals), signals), signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsPlusFlow(FlowContrastCredit):
    """Contrast and flow."""

    def scores(self, signals: Signals) -> Tensor:
        """Both ranks."""
        return both_ranks(contrast(signals).abs(), signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTimesPresence(FlowContrastCredit):
    """Presence and flow."""

    def scores(self, signals: Signals) -> Tensor:
        """Both ranks."""
        return both_ranks(presence(signals).abs(), signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPresence(CorrelationCredit):
    """Presence with its sign."""

    def scores(self, signals: Signals) -> Tensor:
        """On the response's own side."""
        return own_side(presence(signals), signals)


BOOSTED: Mapping[str, Callable[..., BoostCredit]] = {
    "position": PositionCredit,
    "contrast": FlowContrastCredit,
    "signed": Signed,
    "signed+flow": SignedPlusFlow,
    "abs+flow": AbsPlusFlow,
    "presence+flow": FlowTimesPresence,
    "signed presence": SignedPresence,
}


def forms(task: str) -> dict[str, Credit]:
    """What is measured there."""
    if task == CONFIRMED:
        return {
            "position": PositionCredit(),
            "position x3": PositionCredit(gamma=3.0),
            "correlation": make_credit("correlation"),
            "flow": make_credit("flow"),
            "flow x3": FlowCredit(gamma=3.0),
            "contrast": FlowContrastCredit(),
            "abs+flow": AbsPlusFlow(),
            "abs+flow x3": AbsPlusFlow(gamma=3.0),
        }
    found: dict[str, Credit] = {}
    for name, make in BOOSTED.items():
        found |= {name: make(), f"{name} x3": make(gamma=3.0), f"{name} gate": make(gamma=GATE)}
    found |= {
        "correlation": make_credit("correlation"),
        "correlation gate": make_credit("correlation", {"gamma": GATE}),
    }
    found |= {
        f"flow{what}": make_credit("flow", {"gamma": by}) for what, by in (("", 1.5), (" x3", 3.0), (" gate", GATE))
    }
    return found | {"contrast value": FlowContrastCredit(capacity="value"), "signed value": Signed(capacity="value")}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/forms"))
    options = parser.parse_args()
    found: dict[str, MeterResult] = {}
    for name, (model, task, how) in TASKS.items():
        folder = options.work / name.replace(", ", "-")
        loaded = load_model(model, device="cpu", dtype="float32")
        found[name] = meter(*loaded, task, forms(name), options=how, mix=[UNIFORM], out=folder)
        print(name, found[name].truth.verdict())
    document = {name: [asdict(worth) for worth in result.worths] for name, result in found.items()}
    print(write_outcome("flow_forms", document, [worth_table(found)], heading="Forms of flow credit, by the meter"))


def worth_table(found: Mapping[str, MeterResult]) -> Table:
    """Forms down, tasks across."""
    table = Table("form", title="worth over uniform, plain metric, 95 % intervals")
    worths = {task: {w.name: w.plain for w in result.worths if w.kind == "strategy"} for task, result in found.items()}
    for task in found:
        table.add_column(f"{task} (confirms)" if task == CONFIRMED else task, justify="right")
    for name in worths["countdown"]:
        cells = (percent(each[name]) if name in each else "" for each in worths.values())
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
