"""A process that grades: one JSON object a line in, one out. `flowtracer.evaluation.pool` starts and ends it.

    python -m flowtracer.evaluation.worker 10

Nothing but answers goes to the standard output, whatever a library prints. Where the system can hold it to that, a
grading may take `MEMORY` above what the process starts with, and as many seconds of computing as the argument says: the
pool keeps the time on the wall, but a pool that was killed cannot end a process that hangs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import os
import sys
from dataclasses import asdict

from flowtracer.evaluation.base import Answered, Grade
from flowtracer.evaluation.grading import grade
from flowtracer.evaluation.pool import READY

MEMORY = 4 << 30
"""Bytes that one process may take: an honest comparison takes some 10 MB."""


def main(seconds: float) -> None:
    """Grade until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.WARNING)  # math-verify says for each process that its own limit is off
    if importlib.util.find_spec("math_verify") is not None:
        import math_verify  # noqa: F401 - loaded before the clock runs
    _limit_memory()
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        _limit_time(seconds)
        try:
            result = grade(Answered(**json.loads(line)))
        except (MemoryError, RecursionError):
            result = Grade(correct=False, reason="too_large")
        print(json.dumps(asdict(result)), file=answers, flush=True)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        import psutil

        most = psutil.Process().memory_info().vms + MEMORY
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _limit_time(seconds: float) -> None:
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = math.ceil(used.ru_utime + used.ru_stime + seconds)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


if __name__ == "__main__":
    main(float(sys.argv[1]))
