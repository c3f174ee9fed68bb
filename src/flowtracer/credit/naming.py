"""Strategies as a command line names them: "flow", "flow:keep=bottom", "flow:capacity=alti,graph=layered"."""

from __future__ import annotations

import json
import re
from typing import Any

_COMMAS = re.compile(r",(?![^\[]*\])")
"""Those that stand in no list."""


def split_names(text: str) -> list[str]:
    """Names with their options, out of "flow:keep=bottom,ratio=0.2,position": an option belongs to the name before."""
    names: list[str] = []
    for part in filter(None, _COMMAS.split(text.replace(" ", ""))):
        if "=" in part and ":" not in part and names:
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names


def named_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name, and the options behind its colon: JSON where they are, such as 0.2 or [1,2], else words, such as bottom.

    Options stand behind commas or further colons.
    """
    name, _, given = text.partition(":")
    options: dict[str, Any] = {}
    for option in filter(None, _COMMAS.split(given.replace(":", ","))):
        key, _, value = option.partition("=")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return name, options
