"""Records of a data set on the Hugging Face hub, or of a folder that is laid out as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flowtracer.errors import InputError, MissingDependencyError


def read_hub(
    name: str, config: str | None, split: str, *, instead: str, streaming: bool = False
) -> Iterator[tuple[int, Any]]:
    """Records with their numbers from 1 on.

    Args:
        name: Hub id, or a folder.
        config: One of its configurations; None for the only one.
        split: One of its splits.
        instead: What to do without the hub, as messages end.
        streaming: Read records as they are asked for, instead of the whole data set first.

    Raises:
        InputError: It cannot be reached, or has no such configuration or split.
        MissingDependencyError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f'expected the datasets package to load {name!r}, got none: pip install "flowtracer[eval]", or {instead}'
        ) from error
    try:
        rows = datasets.load_dataset(name, config, split=split, streaming=streaming)
    # What datasets raises without a network, a token or the data set: OSError (the hub's errors are such), ValueError
    # for a split or a configuration, RuntimeError for scripts.
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected the data set {name!r} (split {split!r}), got {error}; check the network, or {instead}"
        ) from error
    return enumerate(rows, 1)
