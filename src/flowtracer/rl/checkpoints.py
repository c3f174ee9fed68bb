"""Which checkpoint of a run to go on from.

A trainer writes its own state last, so a checkpoint without it was cut off by a kill and is worth nothing. One that has
it may still be damaged: a file system that lost power keeps names and loses ends. So every file that says how long it
is is asked whether it is all there, and where one is not, the checkpoint before it is taken. What `train` writes has a
checksum for every file as well, so that one in which a bit has turned over is told from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flowtracer.folders import write_atomically

_STATE = "trainer_state.json"
_SUMS = "checksums.json"


def steps_of(checkpoint: Path | None) -> int:
    """Steps that a checkpoint has behind it; none without one."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))


def newest_whole(folder: Path) -> tuple[Path | None, list[Path]]:
    """The latest checkpoint that can be read to its end, and the later ones that cannot."""
    broken: list[Path] = []
    for checkpoint in reversed(in_order(folder)):
        if _is_whole(checkpoint):
            return checkpoint, broken
        broken.append(checkpoint)
    return None, broken


def put_into_the_past(folder: Path) -> None:
    """Date checkpoints before now, in their order, where one is later: the trainer takes the oldest away by its date,
    which would be the newest after a clock was set back.
    """
    checkpoints, now = in_order(folder), time.time()
    if any(checkpoint.stat().st_mtime >= now for checkpoint in checkpoints):
        for age, checkpoint in enumerate(reversed(checkpoints), 1):
            os.utime(checkpoint, (now - age, now - age))


def in_order(folder: Path) -> list[Path]:
    """Checkpoints of a run, whole or not, by their steps."""
    named = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(named, key=steps_of)


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


def write_checksums(checkpoint: Path) -> None:
    """Note what is in a checkpoint's files, but for the random state of other processes, which may still be written."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and not file.name.startswith("rng_state_"))
    sums = {file.relative_to(checkpoint).as_posix(): _checksum(file) for file in files if file.name != _SUMS}
    write_atomically(checkpoint / _SUMS, json.dumps(sums, indent=2) + "\n")


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_bytes())
        # Without them it is of an older version, or a kill came between the checkpoint's last file and this one.
        sums = json.loads((checkpoint / _SUMS).read_bytes()) if (checkpoint / _SUMS).exists() else {}
        if any(_checksum(checkpoint / name) != wanted for name, wanted in sums.items()):
            return False
    except (OSError, ValueError, AttributeError):
        return False
    return all(map(_is_readable, checkpoint.rglob("*")))


def _checksum(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            found.update(block)
    return found.hexdigest()


def _is_readable(file: Path) -> bool:
    """Whether a file ends where it says; what does not say counts as whole."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "numpy"):
                return True
        except (SafetensorError, OSError):
            return False
    return file.suffix not in (".pt", ".pth", ".bin") or zipfile.is_zipfile(file)  # torch writes zip archives
