"""What happens beside a training run: log, held-out accuracy, checksums of checkpoints, beginning and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from flowtracer.errors import InputError
from flowtracer.evaluation.accuracy import accuracy, judge, respond
from flowtracer.folders import LineFile
from flowtracer.rl.checkpoints import put_into_the_past, write_checksums
from flowtracer.tasks import Task

if TYPE_CHECKING:
    from flowtracer.rl.run import EvaluationSection, LogLine


class NothingLeft(Exception):
    """The checkpoint stands at the last step; a trainer that goes on from there would take one more."""


class Beginning(TrainerCallback):
    """Ends a run that has no step left before it takes one, and takes the mark of an older end away."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look before the first step."""
        if state.global_step >= state.max_steps:
            raise NothingLeft
        if state.is_world_process_zero:
            self._mark.unlink(missing_ok=True)


class Logging(TrainerCallback):
    """Writes every logged step as a line of JSON, on the first process alone."""

    def __init__(self, log: LineFile, on_log: Callable[[LogLine], None]) -> None:
        self._log = log
        self._on_log = on_log

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line."""
        if not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "max_steps": state.max_steps, "time": time.time(), **(logs or {})}
        self._log.add([line])
        self._on_log(line)


class Checkpoints(TrainerCallback):
    """Sees to it that the oldest goes, and notes what is in each once it is written; on the first process alone."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer before it writes one and takes the oldest away."""
        if control.should_save and state.is_world_process_zero:
            put_into_the_past(Path(args.output_dir))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer behind its last file."""
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if state.is_world_process_zero and checkpoint.is_dir():  # the trainer has taken older ones away by now
            write_checksums(checkpoint)


class Evaluation(TrainerCallback):
    """Measures held-out accuracy, on the first process alone.

    Raises:
        InputError: A sharded model.
    """

    def __init__(self, trainer: Any, section: EvaluationSection, task: Task) -> None:
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError(
                "expected no [evaluation] with a sharded model, whose processes must all run; evaluate apart"
            )
        self._trainer = trainer
        self._section = section
        self._task = task
        self._problems = task.problems(section.split, section.problems)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure the model that training starts from."""
        if state.global_step == 0 and state.is_world_process_zero:
            self._evaluate(model, args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure where it is due, and at the end."""
        due = state.global_step % self._section.every == 0 or state.global_step == state.max_steps
        if due and state.is_world_process_zero:
            self._evaluate(model, args, state, control)

    def _evaluate(self, model: Any, args: Any, state: Any, control: Any) -> None:
        started = time.perf_counter()
        responses = respond(
            self._trainer.accelerator.unwrap_model(model),
            self._trainer.processing_class,
            self._problems,
            temperature=self._section.temperature,
            max_new_tokens=self._section.max_new_tokens,
            batch_size=self._section.batch_size,
        )
        measured = accuracy([verdict.correct for verdict in judge(self._task, self._problems, responses)])
        logs = {
            "held_out/accuracy": measured.mean,
            "held_out/low": measured.low,
            "held_out/high": measured.high,
            "held_out/characters": sum(map(len, responses)) / len(responses),
            "held_out/seconds": time.perf_counter() - started,
        }
        # To every callback and tracker, but not through trainer.log, which would take the step's own metrics along.
        due = control.should_log
        self._trainer.callback_handler.on_log(args, state, control, logs)
        control.should_log = due  # which takes the step's own line for written
