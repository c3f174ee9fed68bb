"""What several commands read out of their options."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowtracer.cli.console import errors, warn
from flowtracer.errors import FormatError, InputError

if TYPE_CHECKING:
    from flowtracer.trace import Rollout, Skipped, Trace


def parse_bytes(text: str) -> int:
    """Bytes out of "2GiB", "500 MB" or a plain number."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return TypeAdapter(ByteSize).validate_python(text.strip())
    except ValidationError as error:
        message = f'expected a size such as "2GiB", "500MB" or a number of bytes, got {text!r}'
        raise InputError(message) from error


def parse_layers(text: str) -> list[int]:
    """Layers out of "10-19,25"."""
    found = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text.replace(" ", ""))
    if found is None:
        raise InputError(f'expected layers such as "10-19" or "3,5,7", got {text!r}')
    ranges = [part.split("-") for part in found.group().split(",")]
    return [layer for part in ranges for layer in range(int(part[0]), int(part[-1]) + 1)]


def parse_effects(text: str) -> int | Literal["all"]:
    """Of how many hubs effects are measured, or "all" for every token before the answer."""
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise InputError(f'expected effects of a number of hubs or of "all" tokens, got {text!r}')
    return int(text)


def parse_shares(text: str) -> list[float]:
    """Shares out of "0.05,0.1,0.2"."""
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f'expected shares such as "0.05,0.1,0.2", got {text!r}') from error


def load_traces(paths: list[Path]) -> Iterator[tuple[Path, Trace]]:
    """Traces of files and folders with their files, one at a time. A bad file of a folder is named and left out.

    Raises:
        InputError: No such file or folder, or a folder without traces.
        FormatError: A file that was asked for by name is no trace, or not one of all files is.
    """
    from flowtracer.trace.trace import find_traces, load_trace

    found, bad = 0, []
    for path in paths:
        for file in find_traces(path):
            try:
                trace = load_trace(file)
            except FormatError as error:
                if file == path:
                    raise
                bad.append(error)
                warn(f"skipped {file.name}: {error}", errors)
                continue
            found += 1
            yield file, trace
    if not found:
        raise FormatError(f"expected at least one trace that can be read, got none of {len(bad)}; the first: {bad[0]}")


def read_ahead(
    rollouts: Path, limit: int | None, pattern: str | None = None
) -> tuple[list[Rollout | Skipped], Iterator[Rollout | Skipped]]:
    """The first records of a file, and all of them, which are read as they are asked for.

    Raises:
        InputError: A pattern that is none, no such file, no record in it, or, in a short file, none with an answer.
        FormatError: A file that is not what its name says.
    """
    from flowtracer.text.answer import check_pattern
    from flowtracer.trace.records import read_rollouts

    check_pattern(pattern)
    records = read_rollouts(rollouts, limit=limit)
    first = list(islice(records, READ_AHEAD))
    if not first:
        raise InputError(f"expected at least one rollout, got none in {str(rollouts)!r}")
    if len(first) < READ_AHEAD:
        _refuse_unusable(first, rollouts, pattern)
    return first, chain(first, records)


ANSWER_PATTERN = "Pattern; its first group is the answer."
READ_AHEAD = 1024
"""Records from which on a file is not counted before it is worked through."""


def _refuse_unusable(records: Sequence[Rollout | Skipped], file: Path, pattern: str | None) -> None:
    """Raise where no record can come to anything, before a model is loaded for them."""
    from flowtracer.text.answer import Miss, locate_answer
    from flowtracer.trace.trace import Skipped

    reasons: Counter[str] = Counter()
    messages = []
    for record in records:
        if isinstance(record, Skipped):
            reason, message = record.reason, record.message
        else:
            found = locate_answer(record.response, record.answer, pattern)
            if not isinstance(found, Miss):
                return
            reason, message = found.value, found.message
        reasons[reason] += 1
        messages.append(message)
    raise InputError(
        f"expected a rollout with an answer in {str(file)!r}, got none in {len(records)}: {counted(reasons)}; the "
        f"first: {messages[0]}"
    )


def refuse_nothing_made(done: str, made: int, skipped: Mapping[str, int]) -> None:
    """Raise where all rollouts of a file were skipped, each of which has been named by now."""
    if not made:
        raise InputError(f"expected at least one rollout that can be {done}, got none: {counted(skipped)}; see above")


def counted(reasons: Mapping[str, int]) -> str:
    """Reasons with how often they came, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
