"""A process that grades: one JSON object a line in, one out. `flowtracer.benchmarks.pool` starts and ends it.

Nothing but answers goes to the standard output, whatever a library prints. A grading that needs more than
`MEMORY` above what the process starts with is wrong, where the system can hold it to that.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import sys
from dataclasses import asdict

from flowtracer.benchmarks.base import Answered, Grade
from flowtracer.benchmarks.grading import grade
from flowtracer.benchmarks.pool import READY

MEMORY = 4 << 30
"""Bytes that one process may take: an honest comparison takes some 10 MB."""


def main() -> None:
    """Grade until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.WARNING)  # math-verify says for each process that its own limit is off
    if importlib.util.find_spec("math_verify") is not None:
        import math_verify  # noqa: F401 - loaded before the clock runs
    _limit_memory()
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
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


if __name__ == "__main__":
    main()
