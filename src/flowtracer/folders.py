"""Output folders that a run can go on in: what one was made with, and lines that are only ever added to its files.

A run that was killed leaves at most half a line behind, which is dropped; everything before it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowtracer.errors import FormatError, InputError

OPTIONS = "options.json"
"""What a folder was made with."""


def claim(folder: Path, options: Mapping[str, Any], *, inside: str = ".") -> None:
    """Make a folder, and one inside it, or check that it was made with the same options.

    Raises:
        InputError: It cannot be written, or holds what other options made.
    """
    wanted = json.loads(json.dumps(options))
    file = folder / OPTIONS
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        kept = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"expected a folder that can be written, got {str(folder)!r}: {error}") from error
    different = sorted(name for name in {*kept, *wanted} if kept.get(name) != wanted.get(name))
    if different:
        raise InputError(
            f"expected the options that {str(folder)!r} was made with, got another {', '.join(different)}; "
            "choose another folder, or empty this one"
        )


class LineFile:
    """A file of JSON objects, one a line, that only grows.

    Raises:
        FormatError: A line that is no JSON object, other than a last one that was cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                with path.open("r+b") as file:
                    file.truncate(content.rfind(b"\n") + 1)

    def lines(self) -> list[dict[str, Any]]:
        """All lines, in the order in which they were added."""
        if not self.path.exists():
            return []
        with self.path.open(encoding="utf-8") as file:
            return [self._parse(number, line) for number, line in enumerate(file, 1)]

    def _parse(self, number: int, line: str) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise FormatError(f"expected JSON in line {number} of {str(self.path)!r}, got {error}") from error
        if not isinstance(parsed, dict):
            raise FormatError(f"expected an object in line {number} of {str(self.path)!r}, got {line[:40]!r}")
        return parsed

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; they stand on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(as_lines(lines))


def as_lines(items: Iterable[Mapping[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(item) + "\n" for item in items)
