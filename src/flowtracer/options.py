"""Things made by name with options that a user gave: a strategy of credit, a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flowtracer.errors import InputError

MadeT = TypeVar("MadeT")

_PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
"""Types that can be told by their names alone; annotations need not be importable."""


def make(what: str, kind: Callable[..., MadeT], options: Mapping[str, Any]) -> MadeT:
    """A thing of some kind with its options.

    Args:
        what: As a message names it, such as "credit 'flow'".
        kind: A class, whose constructor checks values beyond their types.
        options: Its keyword arguments.

    Raises:
        InputError: An option that does not exist, or of another type.
    """
    known = inspect.signature(kind).parameters
    if unknown := sorted(options.keys() - known.keys()):
        raise InputError(
            f"expected options of {what} out of {', '.join(known) or 'none'}, got {', '.join(map(str, unknown))}"
        )
    given = dict(options)
    for name, value in options.items():
        annotation = known[name].annotation
        wanted = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        if wanted in _PLAIN and not _fits(value, _PLAIN[wanted]):
            raise InputError(f"expected {name} of {what} as {wanted}, got {value!r}")
        if wanted == "float":
            given[name] = float(value)
    try:
        return kind(**given)
    except TypeError as error:  # of a list or a table that holds something else
        raise InputError(
            f"expected options of {what} of the types that it takes, got {dict(options)}: {error}"
        ) from error


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
