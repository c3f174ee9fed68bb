"""TRL's own options as a run file gives them, checked before anything is computed.

TRL checks some of them where it builds its arguments, some in the middle of a run, and some never.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from flowtracer.errors import InputError

_AT_LEAST = {
    "num_generations": 2,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "generation_batch_size": 1,
    "steps_per_generation": 1,
    "num_iterations": 1,
    "max_completion_length": 1,
    "learning_rate": 0,
    "temperature": 1e-6,
}
"""Below these TRL fails later, or divides by 0; a temperature of 0 samples nothing that could differ."""

SETTLED = frozenset(
    {
        *(*_AT_LEAST, "max_steps", "num_train_epochs", "warmup_steps", "gradient_checkpointing"),
        *("save_strategy", "save_steps", "save_total_limit"),
        *("logging_strategy", "logging_steps", "logging_first_step", "log_completions"),
        *("report_to", "run_name", "disable_tqdm"),
    }
)
"""Options of which nothing is left to find out when they have been checked here."""

_ELSEWHERE = {
    "output_dir": "at the top",
    "seed": "at the top",
    "credit": "as name under [credit]",
    "credit_options": "as [credit.options]",
    "credit_normalise": "as normalise under [credit]",
    "credit_generation_bytes": "as generation_bytes under [credit]",
    "answer_pattern": "under [credit]",
    "trace_steps": "as every under [traces]",
    "trace_prompts": "as prompts under [traces]",
}
"""Options that a run file has a place of its own for."""


def build_arguments(kind: Any, given: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """A trainer's arguments.

    Args:
        kind: Their class.
        given: What stands under [grpo].
        own: Everything else, which is not checked.

    Raises:
        InputError: An option that does not exist, is of another type, out of range, or goes with no other; names it.
    """
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    if unknown := sorted(given.keys() - fields):
        raise InputError(f"expected options of trl.GRPOConfig under [grpo], got {unknown}")
    for name in given.keys() & _ELSEWHERE.keys():
        raise InputError(f"expected {name} {_ELSEWHERE[name]} of a run file, got it under [grpo]; move it there")
    kinds = get_type_hints(kind)
    for name, value in given.items():
        try:
            TypeAdapter(kinds[name]).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise InputError(f"expected {name} under [grpo] to be right, got {value!r}: {reason}") from error
        if name in _AT_LEAST and value is not None and not _AT_LEAST[name] <= value < math.inf:
            raise InputError(f"expected {name} under [grpo] of at least {_AT_LEAST[name]}, got {value!r}")
    try:
        arguments = kind(**{**own, **given})
    except (ValueError, TypeError, ArithmeticError, ImportError) as error:
        raise together(given, error) from error
    _refuse_trackers(arguments.report_to)
    return arguments


def together(given: Mapping[str, Any], error: Exception) -> InputError:
    """What TRL says of options, as a mistake in a run file."""
    return InputError(f"expected options under [grpo] that go together, got {dict(given)}: {error}")


def _refuse_trackers(names: list[str]) -> None:
    """Raise where a tracker is unknown or not installed."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(f"expected report_to under [grpo] among {sorted(INTEGRATION_TO_CALLBACK)}, got {name!r}")
        if name not in get_available_reporting_integrations():
            raise InputError(f"expected the library of report_to = {name!r}, got none; install it, or leave it out")
