"""A training run as one TOML file: model, task, credit and TRL's own options.

    # flowtracer train run.toml
    model = "smollm2"
    output_dir = "runs/countdown"

    [task]
    name = "countdown"

    [credit]
    name = "flow"              # any of flowtracer.CREDITS

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

A run that was interrupted goes on from its last checkpoint when it is started again. Every logged step is also a line
of `log.jsonl` in the output folder.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowtracer.errors import InputError
from flowtracer.evaluation.accuracy import accuracy, judge, respond
from flowtracer.model.load import load_model
from flowtracer.tasks import Problem, Task, make_task, reward

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


def train(run: RunFile, *, on_log: Callable[[LogLine], None] | None = None) -> Path:
    """Run GRPO with per-token credit, from the last checkpoint if there is one; returns the final model's folder.

    Args:
        run: What to train on what.
        on_log: Called with every logged step.

    Raises:
        InputError: An option that does not exist, or an output folder that cannot be written.
    """
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback

    from flowtracer.rl.trl_trainer import FlowGRPOTrainer

    task = make_task(run.task.name, run.task.options)
    arguments = training_arguments(run)
    problems = task.problems("train", run.task.problems)
    checkpoint = last_checkpoint(run.output_dir)
    done = checkpoint is not None and _steps(checkpoint) >= arguments.max_steps > 0
    model, tokenizer = load_model(str(checkpoint) if done else run.model, dtype=run.dtype)
    final = run.output_dir / "final"
    if done:  # a trainer that goes on from its last step would take one more
        model.save_pretrained(final)
        tokenizer.save_pretrained(final)
        return final
    try:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        log_file = _open_log(run.output_dir / "log.jsonl")
    except OSError as error:
        raise InputError(f"expected an output_dir that can be written, got {str(run.output_dir)!r}: {error}") from error
    with log_file:
        trainer = FlowGRPOTrainer(
            model=model,
            processing_class=tokenizer,
            args=arguments,
            train_dataset=Dataset.from_list([problem.row() for problem in problems]),
            reward_funcs=[reward_function(task, problems, run.task.format_reward)],
            callbacks=[_log_callback(log_file, on_log)],
        )
        if run.evaluation.problems:
            trainer.add_callback(_evaluation_callback(trainer, run.evaluation, task))
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model(str(final))
    return final


def _open_log(file: Path) -> TextIO:
    """Open for appending, without the half line that a kill may have left."""
    text = file.read_bytes() if file.exists() else b""
    if not text.endswith(b"\n"):
        file.write_bytes(text[: text.rfind(b"\n") + 1])
    return file.open("a", encoding="utf-8")


def last_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint that was written to its end: the trainer's state comes last."""
    written = [state.parent for state in folder.glob("checkpoint-*/trainer_state.json")]
    return max(written, key=_steps, default=None)


def _steps(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def training_arguments(run: RunFile) -> Any:
    """TRL's arguments; what the run file leaves open gets a default that suits a small machine."""
    import torch

    from flowtracer.rl.trl_trainer import FlowGRPOConfig

    known = {field.name for field in dataclasses.fields(FlowGRPOConfig) if field.init}
    unknown = sorted(set(run.grpo) - known)
    if unknown:
        raise InputError(f"expected options of trl.GRPOConfig under [grpo], got {unknown}")
    defaults: dict[str, Any] = {
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    }
    return FlowGRPOConfig(
        **defaults | run.grpo,
        output_dir=str(run.output_dir),
        seed=run.seed,
        credit=run.credit.name,
        credit_options=run.credit.options,
        credit_normalise=run.credit.normalise,
        trace_steps=run.traces.every,
        trace_prompts=run.traces.prompts,
    )


def reward_function(task: Task, problems: Sequence[Problem], format_reward: float = 0.0) -> Callable[..., list[float]]:
    """The task's reward in the form that TRL calls."""
    by_id = {problem.id: problem for problem in problems}

    def rewards(completions: list[Any], problem_id: list[str], **_: Any) -> list[float]:
        texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        verdicts = [task.verify(by_id[key], text) for key, text in zip(problem_id, texts, strict=True)]
        return [reward(verdict, format_reward=format_reward) for verdict in verdicts]

    rewards.__name__ = task.name
    return rewards


def _evaluation_callback(trainer: Any, section: EvaluationSection, task: Task) -> Any:
    from transformers import TrainerCallback

    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError("expected no [evaluation] with a sharded model, whose processes must all run; evaluate apart")
    problems = task.problems(section.split, section.problems)

    def evaluate(model: Any, args: Any, state: Any, control: Any) -> None:
        started = time.perf_counter()
        responses = respond(
            model,
            trainer.processing_class,
            problems,
            temperature=section.temperature,
            max_new_tokens=section.max_new_tokens,
            batch_size=section.batch_size,
        )
        measured = accuracy([verdict.correct for verdict in judge(task, problems, responses)])
        logs = {
            "held_out/accuracy": measured.mean,
            "held_out/low": measured.low,
            "held_out/high": measured.high,
            "held_out/characters": sum(map(len, responses)) / len(responses),
            "held_out/seconds": time.perf_counter() - started,
        }
        # To every callback and tracker, but not through trainer.log, which would take the step's own metrics along.
        due = control.should_log
        trainer.callback_handler.on_log(args, state, control, logs)
        control.should_log = due  # which takes the step's own line for written

    class EvaluationCallback(TrainerCallback):
        """Measures held-out accuracy, on the first process alone."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 0 and state.is_world_process_zero:
                evaluate(trainer.accelerator.unwrap_model(model), args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            due = state.global_step % section.every == 0 or state.global_step == state.max_steps
            if due and state.is_world_process_zero:
                evaluate(trainer.accelerator.unwrap_model(model), args, state, control)

    return EvaluationCallback()


def _log_callback(file: Any, on_log: Callable[[LogLine], None] | None) -> Any:
    from transformers import TrainerCallback

    class LogCallback(TrainerCallback):
        """Writes every logged step as a line of JSON."""

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            line = {
                "step": state.global_step,
                "max_steps": state.max_steps,
                "time": time.time(),
                **(logs or {}),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()
            if on_log is not None:
                on_log(line)

    return LogCallback()
