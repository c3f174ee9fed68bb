"""One step of a run with its very options, over a small model and a few tokens, before the run's own model is loaded.

TRL checks some of its options where it builds its arguments, some where a trainer is made, some in the middle of the
first step, and some by what a library below it raises. No list of them would stay right, so the step is taken:

1. Where it fails with the options of a run file and not without them, they are a mistake in that file; an option
   without which it does not fail is named. Where it fails without any, something else is wrong, and that error stands.
   Sizes are settled before, and alone are not worth a step.
2. Sizes are cut, and whatever would compile, start an engine, or reach for the network is left out (`_SMALL`).
3. Sharded and distributed runs are not rehearsed: their processes would have to be, together.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.utils import logging

from flowtracer.errors import InputError
from flowtracer.rl.grpo_options import SETTLED

_SMALL = {
    "max_completion_length": 4,
    "max_steps": 1,
    "torch_compile": False,
    "push_to_hub": False,
    "report_to": [],
    "disable_tqdm": True,
    "log_completions": False,
    "logging_first_step": False,
}

Build = Callable[[Mapping[str, Any], Path], Any]
"""A trainer over a small model out of options and an output folder."""


class _TookAStep(Exception):
    pass


class _OneStep(TrainerCallback):
    """Ends a training behind its first forward and backward pass."""

    def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
        raise _TookAStep

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        raise _TookAStep


def rehearse(given: Mapping[str, Any], build: Build) -> None:
    """Take a step with the options of a run file, where these are more than sizes.

    Args:
        given: What stands under [grpo], checked already one by one.
        build: Makes the trainer.

    Raises:
        InputError: It fails with these options and not without; names one where one is at fault.
    """
    asked = [name for name in given if name not in SETTLED]
    error = _failure(given, build) if asked else None
    if error is None:
        return
    said = f"{type(error).__name__}: {error}" if error.__cause__ is None else error.__cause__
    for name in asked:
        if _failure({key: value for key, value in given.items() if key != name}, build) is None:
            raise InputError(
                f"expected {name} under [grpo] that TRL can train with, got {given[name]!r}: {said}"
            ) from error
    if _failure({key: value for key, value in given.items() if key in SETTLED}, build) is not None:
        raise error
    raise InputError(f"expected options under [grpo] that TRL can train with, got {dict(given)}: {said}") from error


def _failure(given: Mapping[str, Any], build: Build) -> Exception | None:
    options = {**given, **_SMALL}
    if importlib.util.find_spec("vllm") is not None:
        options["use_vllm"] = False
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the run itself says it again
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            trainer = build(options, Path(folder))
            trainer.add_callback(_OneStep())
            trainer.train()
    except _TookAStep:
        return None
    except Exception as error:  # of any library: which is whose mistake is told by leaving options out
        return error
    finally:
        logging.set_verbosity(verbosity)
    return None
