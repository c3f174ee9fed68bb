"""Output folders that a run can go on in, and everything that is written there.

1. `lock`: one process at a time; the system lets go of the lock however the process ends.
2. `claim`: what the folder was made with. Last, when options are parsed and the model is loaded, so that a mistake
   leaves no mark.
3. `LineFile`: lines that are added as results come. `write_atomically`: everything else, whole or not at all.
4. `storing`: a full disk or a folder that vanished is one kind of error, whichever library met it.
5. `digest`: what a result depends on, as a key. A result is found again by what it was made of, not by its place.

A run that was killed leaves at most half a line behind, which is dropped; everything before it stands.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import reprlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowtracer.errors import FlowTracerError, FormatError, InputError, StorageError

OPTIONS = "options.json"
"""What a folder was made with."""

PARTIAL = re.compile(r"\..+\.\d+\.partial")
"""Name of a file that is being written."""

_LOCK = ".lock"
_MEND = "delete that line, and run again"
_HOLDER = ".lock.pid"  # beside it, because releases of filelock empty the lock's own file


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, made if it does not exist, against other processes.

    Args:
        folder: What is held.
        wait: Until another process lets go of it, instead of refusing.

    Raises:
        InputError: Another process holds it, or it cannot be written.
        StorageError: What is done while it is held meets a full disk, or the folder vanishes.
    """
    from filelock import FileLock, Timeout

    held = FileLock(folder / _LOCK, timeout=-1 if wait else 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout as error:
        raise InputError(
            f"expected a folder that no other process writes to, got {str(folder)!r}, held by {_holder(folder)}; "
            "wait until it is done, or choose another folder"
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        with storing(folder):
            for left in (path for path in folder.glob(".*") if PARTIAL.fullmatch(path.name)):  # by one that was killed
                left.unlink(missing_ok=True)
            write_atomically(folder / _HOLDER, f"{os.getpid()}\n")
            yield
    finally:
        held.release()


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Name what keeps a folder from taking what is written there.

    Raises:
        StorageError: A full disk, a quota, a device that fails, a folder that vanished; anything else goes through.
    """
    try:
        yield
    except FlowTracerError:
        raise
    except Exception as error:
        reason = _why_unstored(folder, error)
        if reason is None:
            raise
        raise StorageError(
            f"expected room for results in {str(folder)!r}, got {reason}; make room, and run again: what stands there "
            "whole is used"
        ) from error


def claim(folder: Path, options: Mapping[str, Any]) -> None:
    """Note what a folder, made if it does not exist, is made with, or check that it was made with the same.

    Raises:
        InputError: It cannot be written, or holds what other options made; names each with its old and new value.
        FormatError: Its note of them cannot be read.
    """
    wanted = _given(json.loads(json.dumps(options)))
    file = folder / OPTIONS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            write_atomically(file, json.dumps(wanted, indent=2) + "\n")
        kept = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unwritable(folder, error) from error
    except ValueError as error:
        raise _no_options(file, str(error)) from error
    if not isinstance(kept, dict):
        raise _no_options(file, reprlib.repr(kept))
    refuse_others(kept, wanted, repr(str(folder)), "choose another folder, or empty this one")


def differences(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Each option that differs, with its wanted and its kept value.

    An option without a value is one that was not given: what a newer version can be asked for, and was not, is the same
    as what an older one did.
    """
    kept, wanted = _given(kept), _given(wanted)
    return [
        f"{name} {_shown(wanted, name)} instead of {_shown(kept, name)}"
        for name in sorted({*kept, *wanted})
        if _shown(kept, name) != _shown(wanted, name)
    ]


def refuse_others(kept: Mapping[str, Any], wanted: Mapping[str, Any], where: str, remedy: str) -> None:
    """Raise unless options are those that something was made with.

    Raises:
        InputError: Names each that differs with its old and new value.
    """
    different = differences(kept, wanted)
    if different:
        raise InputError(f"expected the options that {where} was made with, got {', '.join(different)}; {remedy}")


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write a file under another name and rename it: whoever looks finds the old one or the new one, whole.

    Raises:
        StorageError: A full disk, or a folder that vanished.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storing(path.parent):
        try:
            partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
            return partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def refuse_unwritable(path: Path) -> None:
    """Raise where a file cannot be written, before what it is to hold is computed; its folder is made.

    Raises:
        InputError: A folder, or a place that takes no file.
    """
    if path.is_dir():
        raise InputError(f"expected the name of a file, got {str(path)!r}, which is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"expected a file that can be written, got {str(path)!r}: {error}") from error


def digest(*parts: Any) -> str:
    """128 bits, as hexadecimal digits, that are the same for the same JSON values and for no others."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:32]


class LineFile:
    """A file of JSON objects, one a line, that grows. A last line that was cut off does not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = False

    def lines(self) -> list[dict[str, Any]]:
        """All lines, in the order in which they were added.

        Raises:
            FormatError: A line that is no JSON object.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return [self._parse(number, line) for number, line in enumerate(file, 1) if line.endswith(b"\n")]

    def by(self, name: str) -> dict[Any, dict[str, Any]]:
        """All lines by the field that tells them apart.

        Raises:
            FormatError: A line that is no JSON object or has no such field, or two with the same.
        """
        found: dict[Any, dict[str, Any]] = {}
        for number, line in enumerate(self.lines(), 1):
            if name not in line:
                raise FormatError(
                    f"expected a field {name!r} in line {number} of {str(self.path)!r}, got {sorted(line)}; "
                    "another version wrote it: choose another folder"
                )
            if line[name] in found:
                raise FormatError(
                    f"expected each {name} once in {str(self.path)!r}, got {line[name]!r} again in line {number}; "
                    "two processes wrote to it: delete it, and run again"
                )
            found[line[name]] = line
        return found

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; they stand in the file when this returns.

        Raises:
            StorageError: A full disk, or a folder that vanished; what stood there before stands.
        """
        with storing(self.path.parent):
            if not self._whole:
                self._cut_half_line()
            self._whole = False  # until all of it has been written
            with self.path.open("a", encoding="utf-8") as file:
                file.write(as_lines(lines))
            self._whole = True

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop every line but those wanted, such as what a log says of steps beyond the checkpoint to go on from."""
        if self.path.exists():
            write_atomically(self.path, as_lines(filter(wanted, self.lines())))

    def _cut_half_line(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        if content and not content.endswith(b"\n"):
            with self.path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)

    def _parse(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise FormatError(f"expected JSON in line {number} of {str(self.path)!r}, got {error}; {_MEND}") from error
        if not isinstance(parsed, dict):
            raise FormatError(
                f"expected an object in line {number} of {str(self.path)!r}, got {reprlib.repr(parsed)}; {_MEND}"
            )
        return parsed


def as_lines(items: Iterable[Mapping[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(item) + "\n" for item in items)


def _holder(folder: Path) -> str:
    try:
        return f"process {int((folder / _HOLDER).read_text(encoding='utf-8'))}"
    except (OSError, ValueError):  # it has only just begun
        return "another process"


def _given(value: Any) -> Any:
    """Without what is null, at any depth."""
    if not isinstance(value, Mapping):
        return value
    return {name: _given(of) for name, of in value.items() if of is not None}


def _shown(options: Mapping[str, Any], name: str) -> str:
    return json.dumps(options[name]) if name in options else "none"


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_ROOM = 2**20
"""Free bytes below which a failure that names no cause is taken for a full disk's."""


def _why_unstored(folder: Path, error: BaseException) -> str | None:
    """What the folder or its disk has to do with an error; None for nothing."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        if said := re.search(r"\(os error (\d+)\)", str(seen)):  # libraries written in Rust
            number = int(said.group(1))
        if number in _DISK:
            return os.strerror(number)
        if isinstance(seen, OSError) and isinstance(seen.filename, str | os.PathLike):
            place = Path(os.path.abspath(seen.filename))  # noqa: PTH100 - resolving needs it to exist
            if folder.absolute() in place.parents and folder.exists():
                return str(seen)
        seen = seen.__cause__ or seen.__context__
    if not folder.exists():
        return "a folder that is gone"
    return os.strerror(errno.ENOSPC) if shutil.disk_usage(folder).free < _ROOM else None


def _unwritable(folder: Path, error: OSError) -> InputError:
    return InputError(f"expected a folder that can be written, got {str(folder)!r}: {error}")


def _no_options(file: Path, got: str) -> FormatError:
    return FormatError(
        f"expected the options that the folder was made with in {str(file)!r}, got {got}; choose another folder, or "
        "empty this one"
    )
