"""Problems with verifiers, by name.

A task's options are the fields of its class: `TASKS["countdown"](max_target=50)`.
"""

from collections.abc import Callable

from flowtracer.tasks.base import Problem, Reason, Task, Verdict, reward, split_of, validate
from flowtracer.tasks.countdown import Countdown
from flowtracer.tasks.gsm_symbolic import GsmSymbolic
from flowtracer.tasks.planted import Planted
from flowtracer.tasks.worked import WorkedTask

TASKS: dict[str, Callable[..., Task]] = {
    Countdown.name: Countdown,
    GsmSymbolic.name: GsmSymbolic,
    Planted.name: Planted,
}

__all__ = [
    "TASKS",
    "Countdown",
    "GsmSymbolic",
    "Planted",
    "Problem",
    "Reason",
    "Task",
    "Verdict",
    "WorkedTask",
    "reward",
    "split_of",
    "validate",
]
