"""Time and peak memory of a call: what every benchmark shares."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def require_gpu() -> None:
    """End the program with exit code 2 where torch sees no NVIDIA GPU."""
    if not torch.cuda.is_available():
        print("expected an NVIDIA GPU to measure on, got none; run this where torch sees one", file=sys.stderr)
        raise SystemExit(2)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def synchronised(call: Callable[[], object]) -> float:
    """Wall time of a call, with all that it left on the GPU."""

    def whole() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return seconds(whole)


def processor_seconds(call: Callable[[], object]) -> float:
    """Processor time of one call, over all threads: what else runs on the machine does not count."""
    started = time.process_time()
    call()
    return time.process_time() - started


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Resident memory that a call takes at its highest, above what was there before; Linux only."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        return None
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset.write_text("5")  # the highest mark falls back to the present size
    before = _status_bytes(status, "VmRSS")
    call()
    return _status_bytes(status, "VmHWM") - before


def _status_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
