"""Where rollouts are asked for: a file, a folder, a pattern of files, or a data set on the hub.

Files of a folder are taken in the order of the numbers in their names, as trainers count steps: `2.jsonl` before
`10.jsonl`. Hidden files, and those of other kinds, are none of them.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError
from flowtracer.hub import read_hub

HUB = "hub:"
"""What the name of a data set begins with: `hub:owner/name`, with options `hub:owner/name:config=main,split=test`."""


def find_files(asked: str, suffixes: Sequence[str]) -> list[Path]:
    """The files that a path, or a pattern with `*`, `?` or `[`, stands for.

    Args:
        asked: A file, which need not be of these kinds; a folder, with all folders in it; or a pattern, in which `**`
            stands for any folders.
        suffixes: What names of a folder's or a pattern's files end in.

    Raises:
        InputError: There is no such file, or none of these kinds.
    """
    path = Path(asked)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.rglob("*"))
        what = f"folder with files that end in {', '.join(suffixes)}"
    elif glob.has_magic(asked):
        found = [Path(name) for name in glob.glob(asked, recursive=True)]  # noqa: PTH207 - a pattern may begin at the root
        what = f"pattern of files that end in {', '.join(suffixes)}"
    else:
        raise InputError(
            f"expected a file of rollouts, a folder or a pattern of such, or {HUB}OWNER/NAME, got {asked!r}, which is "
            "no file; check the path"
        )
    base = path if path.is_dir() else Path()
    files = [file for file in found if _is_wanted(file, base, suffixes)]
    if not files:
        raise InputError(f"expected a {what}, got {asked!r}, which has none; check the path")
    return sorted(files, key=_by_number)


def read_data_set(asked: str) -> tuple[str, Iterator[tuple[int, Any]]]:
    """Name and numbered records, as they are asked for, of `hub:owner/name[:config=C,split=S]`.

    Raises:
        InputError: An option that does not exist, or a data set that cannot be reached.
        MissingDependencyError: `datasets` is not installed.
    """
    name, _, given = asked.removeprefix(HUB).partition(":")
    pairs = [part.partition("=") for part in given.split(",") if part]
    options = {key.strip(): value.strip() for key, _, value in pairs}
    if not name or not options.keys() <= {"config", "split"} or not all(options.values()):
        raise InputError(f"expected {HUB}OWNER/NAME or {HUB}OWNER/NAME:config=C,split=S, got {asked!r}")
    instead = "pass a local file of the same records"
    return name, read_hub(name, options.get("config"), options.get("split", "train"), instead=instead, streaming=True)


def _is_wanted(file: Path, base: Path, suffixes: Sequence[str]) -> bool:
    within = file.relative_to(base) if file.is_relative_to(base) else file
    hidden = any(part.startswith(".") and part not in (".", "..") for part in within.parts)
    return file.name.lower().endswith(tuple(suffixes)) and not hidden and file.is_file()


def _by_number(file: Path) -> list[list[tuple[int, str]]]:
    """Numbers in names count as numbers."""
    return [
        [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", part)]
        for part in file.parts
    ]
