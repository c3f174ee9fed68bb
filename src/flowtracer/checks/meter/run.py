"""The meter from end to end, in a folder that a run can go on in.

options.json                what rollouts and `g*` were made with
rollouts.jsonl              a line a problem: its responses as token ids, and their rewards
gradient.safetensors        sums of `g*` and of second moments, so far
minibatches/KEY/00.safetensors   a minibatch measured; KEY says by which strategies
meter.json                  the result
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from flowtracer.checks.meter.direction import Direction, find_direction
from flowtracer.checks.meter.gradient import Policy
from flowtracer.checks.meter.loss import LOSS_TYPES
from flowtracer.checks.meter.minibatch import Measured, measure
from flowtracer.checks.meter.result import MeterResult, examples, true_gradient
from flowtracer.checks.meter.rollouts import Group, RolloutFile, as_batch
from flowtracer.checks.meter.strategies import ORACLES, Strategies, parse_strategies, place_oracles
from flowtracer.checks.meter.truth import token_truths
from flowtracer.checks.meter.worth import UNIFORM, best_mix, worths
from flowtracer.credit import Credit, make_credit
from flowtracer.errors import InputError
from flowtracer.folders import LineFile, claim, digest, lock, write_atomically
from flowtracer.model.generate import Sampling
from flowtracer.model.load import model_name
from flowtracer.tasks import LabelledTask, Task
from flowtracer.text.answer import check_pattern

UNMIXED = ("random", "shuffled")
"""Controls that no mix would use."""

Progress = Callable[[str, int, int], None]
"""Called with a stage, how much was done since it was last called, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterOptions:
    """What the meter's numbers depend on, besides model, task and strategies."""

    rollouts: int = 8192
    """Responses that the true gradient is made of."""
    minibatches: int = 24
    batch: int = 64
    """Responses of a minibatch."""
    group: int = 8
    """Responses to a problem."""
    max_new_tokens: int = 256
    """Longest response."""
    temperature: float = 1.0
    loss_type: str = "dapo"
    """The trainer's; TRL's default."""
    parameters: str = "all"
    """Those that gradients are taken by: "all", "lora", or a regular expression in their names."""
    moment_steps: int = 32
    """Minibatches of plain GRPO that Adam's second moments are made of."""
    split: str = "train"
    seed: int = 0
    answer_pattern: str | None = None
    """How responses of a task of one's own state their answer, as a regular expression whose first group it is."""

    def __post_init__(self) -> None:
        if self.group < 2 or self.batch % self.group:
            raise InputError(f"expected whole groups of at least 2, got a batch of {self.batch} by {self.group}")
        if self.rollouts < 2 * self.batch or self.minibatches < 2:
            raise InputError(
                f"expected rollouts for two halves of at least one batch ({2 * self.batch}) and 2 minibatches, got "
                f"{self.rollouts} and {self.minibatches}"
            )
        if self.moment_steps < 1:
            raise InputError(f"expected moment_steps of at least 1, got {self.moment_steps}")
        check_pattern(self.answer_pattern)
        if self.loss_type not in LOSS_TYPES:
            raise InputError(f"expected loss_type among {', '.join(LOSS_TYPES)}, got {self.loss_type!r}")


def meter(
    model: Any,
    tokenizer: Any,
    task: Task,
    credit: str | Mapping[str, Credit] = "all",
    *,
    options: MeterOptions | None = None,
    mix: Sequence[str] | None = None,
    out: Path | None = None,
    rows_per_forward: int = 16,
    on_progress: Progress = lambda stage, done, total: None,
) -> MeterResult:
    """Measure what credit strategies are worth at one policy: see `docs/meter.md`.

    Args:
        model: A causal transformers model in float32.
        tokenizer: Its tokenizer, with a chat template.
        task: Whose reward counts.
        credit: Names, as in "flow,position,flow:keep=bottom", or strategies of one's own by name.
        options: How much of everything; the defaults without.
        mix: Strategies that the best mix is made of; None for all but the controls.
        out: A folder that an interrupted run goes on in; None keeps nothing.
        rows_per_forward: Sequences in one forward.
        on_progress: Called as work is done.

    Raises:
        InputError: Options that do not fit, or a folder that other options made.
        CaptureError: The model's attention or logits cannot be read.
    """
    options = options or MeterOptions()
    strategies = _with_uniform(parse_strategies(credit) if isinstance(credit, str) else dict(credit))
    mixed = [name for name in strategies if name.partition(":")[0] not in UNMIXED] if mix is None else list(mix)
    if not strategies.keys() >= set(mixed):
        raise InputError(f"expected a mix of {', '.join(strategies)}, got {', '.join(mixed)}")
    policy = Policy(
        model, parameters=options.parameters, temperature=options.temperature, rows_per_forward=rows_per_forward
    )
    names = [*strategies, *(ORACLES if isinstance(task, LabelledTask) else ())]
    with _folder(out) as folder:
        made_with = {"model": model_name(model), "weights": _fingerprint(model), "task": _task_text(task)}
        claim(folder, made_with | asdict(options))
        run = _Run(model, tokenizer, task, policy, options, folder, on_progress)
        result = run.result(made_with, strategies, names, mixed)
        write_atomically(folder / "meter.json", json.dumps(result.to_dict(), indent=1) + "\n")
    return result


class _Run:
    """The stages of a run, each of which goes on from what the folder holds."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        task: Task,
        policy: Policy,
        options: MeterOptions,
        folder: Path,
        on_progress: Progress,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._task = task
        self._policy = policy
        self._options = options
        self._folder = folder
        self._on_progress = on_progress
        self.per_step = options.batch // options.group
        self.clock = _Clock()

    def result(
        self, made_with: Mapping[str, str], strategies: Mapping[str, Credit], names: Sequence[str], mixed: Sequence[str]
    ) -> MeterResult:
        """All stages, one after the other."""
        options = self._options
        groups, spared = self.draw(), options.minibatches * self.per_step
        true, rest = groups[:-spared], groups[-spared:]
        direction = self.direction(true)
        measured = self.measure(direction, rest, strategies)
        with self.clock("statistics"):
            return MeterResult(
                model=made_with["model"],
                task=made_with["task"],
                minibatches=options.minibatches,
                batch=options.batch,
                loss_type=options.loss_type,
                parameters=options.parameters,
                truth=true_gradient(true, direction, measured, names),
                worths=worths(measured, names, seed=options.seed),
                mix=best_mix(measured, names, mixed, seed=options.seed),
                tokens=token_truths(measured, names, group=options.group, seed=options.seed),
                examples=examples(self._tokenizer, rest[: self.per_step], measured[0], names),
                seconds=self.clock.seconds,
            )

    def draw(self) -> list[Group]:
        """Rollouts: those for the true gradient, then those of the minibatches."""
        options = self._options
        problems = self._task.problems(
            options.split, options.rollouts // options.group + options.minibatches * self.per_step, seed=options.seed
        )
        how = Sampling(temperature=options.temperature, max_new_tokens=options.max_new_tokens, seed=options.seed)
        file = LineFile(self._folder / "rollouts.jsonl")
        rollouts = RolloutFile(file, problems, self._task, group=options.group, sampling=how)
        with self.clock("rollouts"):
            return rollouts.draw(
                self._model, self._tokenizer, lambda done: self._on_progress("rollouts", done, len(problems))
            )

    def direction(self, groups: Sequence[Group]) -> Direction:
        """The true gradient."""
        with self.clock("true gradient"):
            return find_direction(
                self._policy,
                groups,
                groups_per_step=self.per_step,
                moment_steps=self._options.moment_steps,
                loss_type=self._options.loss_type,
                max_tokens=self._options.max_new_tokens,
                file=self._folder / "gradient.safetensors",
                on_groups=lambda done: self._on_progress("true gradient", done, len(groups)),
            )

    def measure(
        self, direction: Direction, groups: Sequence[Group], strategies: Mapping[str, Credit]
    ) -> list[Measured]:
        """Every minibatch, read back from its file, so that a run that goes on sees the same."""
        options, policy = self._options, self._policy
        kept = self._folder / "minibatches" / digest(*map(_described, strategies.items()))[:12]
        kept.mkdir(parents=True, exist_ok=True)
        placing = Strategies(
            self._model,
            self._tokenizer,
            strategies,
            temperature=options.temperature,
            rows_per_forward=policy.rows_per_forward,
            answer_pattern=options.answer_pattern,
        )
        measured = []
        for number in range(options.minibatches):
            file = kept / f"{number:03d}.safetensors"
            if not file.exists():
                batch = as_batch(groups[number * self.per_step :][: self.per_step], policy.device)
                with self.clock("credit"):
                    placed = placing.place(batch)
                    if isinstance(self._task, LabelledTask):
                        placed |= place_oracles(self._task, self._tokenizer, batch)
                with self.clock("gradients"):
                    found = measure(
                        policy,
                        direction,
                        batch,
                        placed,
                        loss_type=options.loss_type,
                        max_tokens=options.max_new_tokens,
                        seed=options.seed + number,
                        check=number == 0,
                    )
                found.save(file)
            measured.append(Measured.load(file))
            self._on_progress("minibatches", 1, options.minibatches)
        return measured


def _with_uniform(strategies: dict[str, Credit]) -> dict[str, Credit]:
    return {UNIFORM: make_credit(UNIFORM)} | strategies


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        with lock(out):
            yield out


def _described(strategy: tuple[str, Credit]) -> list[str]:
    """A strategy by its name and options, and one of the user's own by its name alone."""
    name, credit = strategy
    return [name, repr(credit) if hasattr(credit, "__dataclass_fields__") else ""]


def _task_text(task: Task) -> str:
    """As `parse_task` reads it."""
    options = ",".join(f"{each.name}={json.dumps(getattr(task, each.name))}" for each in fields(task))  # type: ignore[arg-type]
    return f"{task.name}:{options}" if options else task.name


def _fingerprint(model: Any) -> str:
    """Of the weights: what another policy would hardly share."""
    return f"{sum(float(value.detach().double().abs().sum()) for value in model.parameters()):.8g}"


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
