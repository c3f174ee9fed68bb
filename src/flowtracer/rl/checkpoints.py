"""Which checkpoint of a run to go on from.

A trainer writes its own state last, so a checkpoint without it was cut off by a kill and is worth nothing. One that has
it may still be damaged: a file system that lost power keeps names and loses ends. So every file that says how long it
is is asked whether it is all there, and where one is not, the checkpoint before it is taken.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

_STATE = "trainer_state.json"


def steps_of(checkpoint: Path | None) -> int:
    """Steps that a checkpoint has behind it; none without one."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))


def newest_whole(folder: Path) -> tuple[Path | None, list[Path]]:
    """The latest checkpoint that can be read to its end, and the later ones that cannot."""
    named = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    broken: list[Path] = []
    for checkpoint in sorted(named, key=steps_of, reverse=True):
        if _is_whole(checkpoint):
            return checkpoint, broken
        broken.append(checkpoint)
    return None, broken


def set_aside(broken: list[Path], say: Callable[[str], None]) -> None:
    """Take away what was never finished, and rename what is damaged: the trainer would count both as checkpoints."""
    for checkpoint in broken:
        if not (checkpoint / _STATE).exists():
            shutil.rmtree(checkpoint)
            continue
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
        say(f"{checkpoint.name} is damaged and set aside as {aside.name}")


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_bytes())
    except (OSError, ValueError):
        return False
    return all(map(_is_readable, checkpoint.rglob("*")))


def _is_readable(file: Path) -> bool:
    """Whether a file ends where it says; what does not say counts as whole."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "numpy"):
                return True
        except (SafetensorError, OSError):
            return False
    return file.suffix not in (".pt", ".pth", ".bin") or zipfile.is_zipfile(file)  # torch writes zip archives
