"""Grading in processes of their own, each with a wall-clock limit.

Comparing two answers may take forever, and nothing inside a process can be trusted to stop it: a signal works on the
main thread alone and waits for long operations of the interpreter. So a process that has not answered in time is
killed, its response counts as wrong by `timeout`, and another process takes its place; one that dies by itself counts
as `crashed`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from flowtracer.errors import FlowTracerError, InputError
from flowtracer.evaluation.base import Answered, Grade

LIMIT = 10.0
"""Seconds for one response. Hundreds of comparisons of real answers took 2 s at most."""

READY = "ready"
"""What a process says first, when everything is loaded."""

_START = 300.0
"""Seconds for a process to load its libraries, on a slow disk."""


class GradingPool:
    """Processes that grade.

    Args:
        workers: How many at most; they start when they are needed.
        limit: Seconds for one response.
    """

    def __init__(self, *, workers: int = 1, limit: float = LIMIT) -> None:
        if workers < 1 or limit <= 0:
            raise InputError(f"expected at least one worker and a limit above 0 seconds, got {workers} and {limit}")
        self._workers = [_Worker(limit) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the last one used is running already
        for worker in self._workers:
            self._idle.put(worker)

    def grade(self, answered: Sequence[Answered]) -> list[Grade]:
        """A grade for each response, in their order."""
        with ThreadPoolExecutor(len(self._workers)) as threads:
            return list(threads.map(self._grade, answered))

    def _grade(self, answered: Answered) -> Grade:
        worker = self._idle.get()
        try:
            return worker.grade(answered)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One process, replaced when it hangs or dies; used by one thread at a time."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._process: subprocess.Popen[str] | None = None

    def grade(self, answered: Answered) -> Grade:
        process = self._process = self._process or _start(self._limit)
        line = ""
        # Of a broken pipe, as of a process that died, the empty line says enough.
        with _killed_after(process, self._limit) as killed, suppress(BrokenPipeError):
            line = _exchange(process, json.dumps(asdict(answered)))
        if killed.is_set() or not line:
            self.stop()
        if line:
            return Grade(**json.loads(line))
        return Grade(correct=False, reason="timeout" if killed.is_set() else "crashed")

    def stop(self) -> None:
        if self._process is None:
            return
        _end(self._process)
        self._process = None


def _start(limit: float) -> subprocess.Popen[str]:
    home = str(Path(__file__).parents[2])
    process = subprocess.Popen(  # noqa: S603 - this interpreter and this package
        # Twice as long as it gets: the clock on the wall is to be the one that ends it.
        [sys.executable, "-m", "flowtracer.evaluation.worker", str(2 * limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))},
        cwd=home,  # Python looks for modules where it is started, and the user's folder may hold a resource.py
    )
    with _killed_after(process, _START):
        line = process.stdout.readline() if process.stdout else ""
    if line.strip() != READY:
        _end(process)
        raise FlowTracerError(
            f"expected a grading process to start, got none (exit code {process.returncode}); "
            "see what `python -m flowtracer.evaluation.worker 10` says"
        )
    return process


def _exchange(process: subprocess.Popen[str], question: str) -> str:
    """Its answer, or nothing if it ended."""
    if process.stdin is None or process.stdout is None:
        return ""
    process.stdin.write(question + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    return line if line.endswith("\n") else ""


@contextmanager
def _killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[threading.Event]:
    """Kill a process that is not done in time; the event says whether it was."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield killed
    finally:
        timer.cancel()
        timer.join()  # after this the event does not change any more


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written yet cannot be any more
                pipe.close()
    process.wait()
