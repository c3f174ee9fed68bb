"""A training run as one TOML file: model, task, credit and TRL's own options.

    # flowtracer train run.toml
    model = "smollm2"
    output_dir = "runs/countdown"

    [task]
    name = "countdown"

    [credit]
    name = "flow"              # any of flowtracer.CREDITS
    answer_pattern = 'Result: (.+)'    # how responses state their answer, where not in one of the usual ways
    generation_bytes = "4GiB"  # what may be kept of a generation, so that credit needs no forward of its own

    [credit.options]           # the strategy's own
    gamma = 1.5

    [grpo]                     # any option of trl.GRPOConfig
    max_steps = 100
    num_generations = 8

    [evaluation]               # greedy accuracy on held-out problems, before, during and after
    problems = 200
    every = 20

    [traces]                   # a few fixed prompts as training goes, in output_dir/traces
    every = 10

Every logged step is also a line of `log.jsonl` in the output folder. Started again,

1. a run that is done says so;
2. one that was interrupted goes on from its last whole checkpoint, and what its log says of later steps goes;
3. an edited file is refused, with old and new values, where the edit would make another run of it. What only says how
   long a run goes on, and how often it saves, logs, evaluates and keeps traces, may change (`FREE`).

One process at a time works in a folder, or the processes of one distributed run.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from flowtracer.credit import make_credit
from flowtracer.errors import FlowTracerError, InputError
from flowtracer.folders import LineFile, claim, differences, lock, write_atomically
from flowtracer.model.load import load_model, model_digest
from flowtracer.rl.checkpoints import newest_whole, set_aside, steps_of
from flowtracer.rl.grpo_options import build_arguments, together
from flowtracer.rl.trackers import outlive_trackers
from flowtracer.signals.generated import GENERATION_BYTES
from flowtracer.tasks import Problem, Task, make_task, reward
from flowtracer.text.answer import check_pattern

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """A table of a file; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionT = TypeVar("SectionT", bound=Section)


class TaskSection(Section):
    """Problems to train on."""

    name: str
    problems: int = Field(default=1024, gt=0)
    """How many distinct training problems."""
    format_reward: float = Field(default=0.0, ge=0, lt=1)
    """Reward of a wrong answer in the right form."""
    options: dict[str, Any] = {}


class CreditSection(Section):
    """Where the reward lands."""

    name: str = "flow"
    options: dict[str, Any] = {}
    normalise: bool = False
    answer_pattern: str | None = None
    """How responses state their answer, where not in one of the usual ways: a regular expression, its first group."""
    generation_bytes: ByteSize = ByteSize(GENERATION_BYTES)
    """What may be kept of one generation, so that credit needs no forward of its own: a number, or "4GiB"."""


class EvaluationSection(Section):
    """Accuracy on held-out problems as training goes; off by default."""

    problems: int = Field(default=0, ge=0)
    split: Literal["validation", "test"] = "validation"
    every: int = Field(default=20, gt=0)
    """Steps between two evaluations; the first is before the first step, the last after the last."""
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=256, gt=0)
    batch_size: int = Field(default=256, gt=0)


class TracesSection(Section):
    """Traces of the first training prompts as training goes, and of what the trainer made of them; off by default."""

    every: int = Field(default=0, ge=0)
    """Optimiser steps between two looks."""
    prompts: int = Field(default=4, ge=0)


class RunFile(Section):
    """One training run."""

    model: str
    output_dir: Path
    seed: int = 0
    dtype: str | None = None
    task: TaskSection
    credit: CreditSection = CreditSection()
    evaluation: EvaluationSection = EvaluationSection()
    traces: TracesSection = TracesSection()
    grpo: dict[str, Any] = {}


def read_run_file(path: str | Path) -> RunFile:
    """Read and check a run file.

    Raises:
        InputError: No such file, not TOML, or a field that is missing, unknown or of another type; names the field.
    """
    return read_sections(path, RunFile)


def read_sections(path: str | Path, kind: type[SectionT]) -> SectionT:
    """Read and check a TOML file of some kind, as `read_run_file` does."""
    try:
        return kind.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"expected a TOML run file, got {str(path)!r}: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise InputError(f"expected a valid run file, got {str(path)!r} with {faults}") from error


LogLine = dict[str, Any]

FREE = frozenset(
    {
        *("traces", "evaluation.every", "credit.generation_bytes"),
        *("grpo.max_steps", "grpo.num_train_epochs"),
        *("grpo.save_strategy", "grpo.save_steps", "grpo.save_total_limit"),
        *("grpo.logging_strategy", "grpo.logging_steps", "grpo.logging_first_step", "grpo.log_completions"),
        *("grpo.report_to", "grpo.run_name", "grpo.disable_tqdm"),
    }
)
"""Options of a run file that may change before a run goes on. With more steps the learning rate follows the schedule of
the new length from there on."""

_FINISHED = "finished.json"
"""In the output folder of a run that is done: the options that it was done with."""


def train(
    run: RunFile,
    *,
    on_log: Callable[[LogLine], None] | None = None,
    on_say: Callable[[str], None] | None = None,
    wait: bool = False,
) -> Path:
    """Run GRPO with per-token credit, from the last whole checkpoint if there is one; returns the final model's folder.

    Args:
        run: What to train on what.
        on_log: Called with every logged step.
        on_say: Called with a sentence where a run is done already, goes on, or finds a checkpoint damaged.
        wait: Until another process in the output folder is done, instead of refusing.

    Raises:
        InputError: An option that does not exist, an output folder that cannot be written, or one that another process
            or a run of other options holds.
    """
    task = make_task(run.task.name, run.task.options)
    check_pattern(run.credit.answer_pattern)
    make_credit(run.credit.name, run.credit.options)  # a typo is told before problems are made
    arguments = training_arguments(run)
    first = arguments.process_index == 0  # of one distributed run
    with lock(run.output_dir, wait=wait) if first else contextlib.nullcontext():
        say = on_say if on_say is not None and first else lambda text: None
        return _train(run, task, arguments, on_log or (lambda line: None), say)


def _train(
    run: RunFile, task: Task, arguments: Any, on_log: Callable[[LogLine], None], say: Callable[[str], None]
) -> Path:
    from flowtracer.rl.callbacks import Beginning, Checkpoints, Evaluation, Logging, NothingLeft

    out, final = run.output_dir, run.output_dir / "final"
    mark, log = out / _FINISHED, LineFile(out / "log.jsonl")
    options = _flat(run.model_dump(mode="json", exclude={"output_dir"}))
    done = mark.exists()
    if done and not differences(json.loads(mark.read_text(encoding="utf-8")), options):
        say(f"done before, nothing is left to do: {final}")
        return final
    _rehearse(run, arguments)
    model, tokenizer = load_model(run.model, dtype=run.dtype)
    problems = task.problems("train", run.task.problems)
    trainer = _trainer(run, arguments, task, problems, model, tokenizer)
    checkpoint, broken = newest_whole(out)
    if arguments.process_index == 0:
        kept = {name: value for name, value in options.items() if name not in FREE}
        claim(out, kept | {"model_files": model_digest(run.model, model)})
        if done and checkpoint is None:
            raise InputError(
                f"expected a checkpoint to go on from in {str(out)!r}, got a run that is done and kept none; choose "
                "another folder, or empty this one"
            )
        set_aside(broken, say)
        log.keep(lambda line: line["step"] <= steps_of(checkpoint) if checkpoint else False)
    if checkpoint is not None:
        say(f"going on from step {steps_of(checkpoint)}")
    for callback in (Beginning(mark), Logging(log, on_log), Checkpoints()):
        trainer.add_callback(callback)
    if run.evaluation.problems:
        trainer.add_callback(Evaluation(trainer, run.evaluation, task))
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except NothingLeft:
        say(f"done before, after {trainer.state.global_step} steps of {trainer.state.max_steps}")
        done = done and final.is_dir()
    else:
        done = False
    if not done:
        trainer.save_model(str(final))
    if arguments.process_index == 0:
        write_atomically(mark, json.dumps(options, indent=2) + "\n")
    return final


def _rehearse(run: RunFile, arguments: Any) -> None:
    """Find out whether TRL can train with the run's options, over `nano` and problems that need no data set."""
    from flowtracer.rl.rehearsal import rehearse

    if arguments.world_size > 1 or arguments.deepspeed or arguments.fsdp:
        return
    task = make_task("planted", {})
    problems = task.problems("train", 1)

    def build(options: Mapping[str, Any], folder: Path) -> Any:
        plain = {"model": "nano", "output_dir": folder, "credit": CreditSection(name="uniform"), "grpo": options}
        small = run.model_copy(update={**plain, "traces": TracesSection()})
        arguments = training_arguments(small)
        rows = problems * arguments.generation_batch_size * arguments.world_size
        return _trainer(small, arguments, task, rows, *load_model("nano"))

    rehearse(run.grpo, build)


def _trainer(run: RunFile, arguments: Any, task: Task, problems: Sequence[Problem], model: Any, tokenizer: Any) -> Any:
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from flowtracer.rl.trl_trainer import FlowGRPOTrainer

    try:
        trainer = FlowGRPOTrainer(
            model=model,
            processing_class=tokenizer,
            args=arguments,
            train_dataset=Dataset.from_list([problem.row() for problem in problems]),
            reward_funcs=[reward_function(task, problems, run.task.format_reward)],
        )
    except FlowTracerError:
        raise
    except (ValueError, ImportError) as error:
        raise together(run.grpo, error) from error
    trainer.remove_callback(PrinterCallback)
    outlive_trackers(trainer.callback_handler.callbacks)
    return trainer


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names in a run file, such as `credit.name`; traces as a whole."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and name != "traces":
            flat |= {f"{name}.{inner}": found for inner, found in _flat(value).items()}
        elif value != {}:
            flat[name] = value
    return flat


def training_arguments(run: RunFile) -> Any:
    """TRL's arguments; what the run file leaves open gets a default that suits a small machine."""
    import torch

    from flowtracer.rl.trl_trainer import FlowGRPOConfig

    own: dict[str, Any] = {
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    }
    own |= {
        "output_dir": str(run.output_dir),
        "seed": run.seed,
        "credit": run.credit.name,
        "credit_options": run.credit.options,
        "credit_normalise": run.credit.normalise,
        "credit_generation_bytes": int(run.credit.generation_bytes),
        "answer_pattern": run.credit.answer_pattern,
        "trace_steps": run.traces.every,
        "trace_prompts": run.traces.prompts,
    }
    return build_arguments(FlowGRPOConfig, run.grpo, own)


def reward_function(task: Task, problems: Sequence[Problem], format_reward: float = 0.0) -> Callable[..., list[float]]:
    """The task's reward in the form that TRL calls."""
    by_id = {problem.id: problem for problem in problems}

    def rewards(completions: list[Any], problem_id: list[str], **_: Any) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        verdicts = [task.verify(by_id[key], text) for key, text in zip(problem_id, texts, strict=True)]
        return [reward(verdict, format_reward=format_reward) for verdict in verdicts]

    rewards.__name__ = task.name
    return rewards
