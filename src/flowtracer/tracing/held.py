"""Which rollouts the tables of a folder hold, found by key in 16 bytes a row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flowtracer.errors import FormatError
from flowtracer.shapes import Int, UInt, ndarray
from flowtracer.trace.rollout_table import read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRow:
    """A rollout that a part holds."""

    row: dict[str, Any]
    """Of the table of rollouts."""
    tokens: Path
    """Table in which its tokens' rows stand."""


class HeldRows:
    """What a folder's tables held when this was first asked; those that were set aside too.

    Args:
        rollouts: Folder of tables of rollouts.
        tokens: Folder of tables of tokens, under the same names.
        but: Rollouts without a trace for one of these reasons do not count.
    """

    def __init__(self, rollouts: Path, tokens: Path, but: Collection[str]) -> None:
        self._tokens = tokens
        self._but = but
        self._rows = lru_cache(maxsize=4)(_rows)  # a window that has shifted lies in two parts
        self.damaged: list[str] = []
        """Tables of rollouts that could not be read; what they hold is not found."""
        self._files = [*rollouts.glob("part-*.parquet"), *rollouts.glob("part-*.parquet.unused")]

    def find(self, key: str) -> HeldRow | None:
        """The row of a rollout by its key of 16 hexadecimal digits."""
        keys, places = self._index
        at = int(np.searchsorted(keys, wanted := np.uint64(int(key, 16))))
        if at == len(keys) or keys[at] != wanted:
            return None
        file, row = (int(number) for number in places[at])
        found = _standing(self._files[file])
        if found is None:
            return None
        try:
            return HeldRow(row=self._rows(found)[row], tokens=self._tokens / found.name)
        except FormatError:  # keys could be read, and the rest could not
            self.damaged.append(f"{found.parent.name}/{found.name}")
            return None

    @cached_property
    def _index(self) -> tuple[UInt[ndarray, " N"], Int[ndarray, "N 2"]]:
        """Keys in rising order, and the file and row of each."""
        keys, places = [np.empty(0, dtype=np.uint64)], [np.empty((0, 2), dtype=np.int32)]
        for file, path in enumerate(self._files):
            if (found := _standing(path)) is None:
                continue
            try:
                said = list(enumerate(read_rows([found], ("key", "reason"))))
            except FormatError:  # its rollouts are traced again
                self.damaged.append(f"{found.parent.name}/{found.name}")
                continue
            held = [(row, r["key"]) for row, r in said if r["key"] is not None and r["reason"] not in self._but]
            keys.append(np.array([int(key, 16) for _, key in held], dtype=np.uint64))
            places.append(np.array([(file, row) for row, _ in held], dtype=np.int32).reshape(-1, 2))
        unordered = np.concatenate(keys)
        order = np.argsort(unordered, kind="stable")
        return unordered[order], np.concatenate(places)[order]


def _standing(file: Path) -> Path | None:
    """A table, set aside or not: another process may have taken it back."""
    other = file.with_suffix("") if file.suffix == ".unused" else file.with_name(f"{file.name}.unused")
    return next((path for path in (file, other) if path.exists()), None)


def _rows(file: Path) -> list[dict[str, Any]]:
    return list(read_rows([file]))
