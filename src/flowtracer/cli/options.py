"""What several commands read out of their options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from flowtracer.errors import InputError

if TYPE_CHECKING:
    from flowtracer.trace import Trace

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_bytes(text: str) -> int:
    """Bytes out of "2GiB", "500 MB" or a plain number."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B|)\s*", text)
    if found is None:
        raise InputError(f'expected a size such as "2GiB", "500MB" or a number of bytes, got {text!r}')
    return int(float(found.group(1)) * _UNITS[found.group(2)])


def parse_layers(text: str) -> list[int]:
    """Layers out of "10-19,25"."""
    found = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.replace(" ", ""))
    if found is None:
        raise InputError(f'expected layers such as "10-19" or "3,5,7", got {text!r}')
    ranges = [part.split("-") for part in found.group().split(",")]
    return [layer for part in ranges for layer in range(int(part[0]), int(part[-1]) + 1)]


def parse_shares(text: str) -> list[float]:
    """Shares out of "0.05,0.1,0.2"."""
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f'expected shares such as "0.05,0.1,0.2", got {text!r}') from error


def load_traces(paths: list[Path]) -> list[Trace]:
    """Traces of files and folders, in their order."""
    from flowtracer.trace.trace import find_traces, load_trace

    return [load_trace(file) for path in paths for file in find_traces(path)]
