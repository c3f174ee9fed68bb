"""Problems with verifiers, by name.

A task's options are the fields of its class: `TASKS["countdown"](max_target=50)`, or
`parse_task("countdown:max_target=50")`.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from flowtracer.errors import InputError
from flowtracer.options import make
from flowtracer.tasks.base import Problem, Reason, Task, Verdict, reward, split_of, validate
from flowtracer.tasks.countdown import Countdown
from flowtracer.tasks.forks import Forks
from flowtracer.tasks.gsm_symbolic import GsmSymbolic
from flowtracer.tasks.planted import Planted
from flowtracer.tasks.worked import LabelledTask, WorkedTask

TASKS: dict[str, Callable[..., Task]] = {
    Countdown.name: Countdown,
    Forks.name: Forks,
    GsmSymbolic.name: GsmSymbolic,
    Planted.name: Planted,
}

__all__ = [
    "TASKS",
    "Countdown",
    "Forks",
    "GsmSymbolic",
    "LabelledTask",
    "Planted",
    "Problem",
    "Reason",
    "Task",
    "Verdict",
    "WorkedTask",
    "make_task",
    "parse_task",
    "reward",
    "split_of",
    "validate",
]


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """A task by name, with its options.

    Raises:
        InputError: An unknown task or option, or one of another type.
    """
    if name not in TASKS:
        raise InputError(f"expected a task among {', '.join(TASKS)}, got {name!r}")
    return make(f"task {name!r}", TASKS[name], options)


def parse_task(text: str) -> Task:
    """A task as a command line names it: "planted", "planted:chains=3,length=4", "forks:place=early".

    Raises:
        InputError: An unknown task or option.
    """
    name, _, given = text.partition(":")
    options: dict[str, Any] = {}
    for option in filter(None, given.split(",")):
        key, _, value = option.partition("=")
        try:
            options[key.strip()] = _value(name, key.strip(), value)
        except ValueError as error:
            raise InputError(
                f"expected options of {name} such as key=3, key=true or key=word, got {option!r}"
            ) from error
    return make_task(name, options)


def _value(task: str, option: str, text: str) -> Any:
    """A word where the task takes one, else JSON."""
    parameters = inspect.signature(TASKS[task]).parameters if task in TASKS else {}
    takes_word = option in parameters and parameters[option].annotation in (str, "str")
    return text if takes_word else json.loads(text)
