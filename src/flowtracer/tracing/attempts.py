"""Tracing on where processes die of what they trace: by smaller forwards, and at last around it.

A process that the system ends for its memory, or that a driver takes down, says no last word. So whoever begins says so
in a file, and who finds such lines there knows how often others began before and did not end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from flowtracer.folders import LineFile
from flowtracer.trace.trace import Rollout, Skipped, Trace
from flowtracer.tracing.memory import trace_within_memory
from flowtracer.tracing.tracer import Tracer

WORKER_DIED = "worker_died"
ALONE = 3
"""Deaths from which on each rollout is traced by itself, and noted before."""
SKIPPED = 2
"""Deaths over one rollout by itself from which on it is skipped: once may be chance, as when a machine is lost."""


class Attempts:
    """Of some rollouts, by one process after another.

    Args:
        file: Where attempts are noted; it must be seen by all that may try.

    Raises:
        FormatError: The file is not what attempts have written.
    """

    def __init__(self, file: Path) -> None:
        self._file = LineFile(file)

    def trace(
        self, tracer: Tracer, rollouts: Sequence[tuple[str, Rollout]], *, max_tokens: int
    ) -> Iterator[tuple[int, Trace | Skipped]]:
        """Trace rollouts, each given with its key, and yield each result with its index."""
        if not rollouts:
            return
        lines = self._file.lines()
        deaths = sum("attempt" in line for line in lines)
        self._file.path.parent.mkdir(exist_ok=True)
        self._file.add([{"attempt": deaths + 1}])
        if deaths < ALONE:
            fewer = max(1, max_tokens >> deaths)
            yield from trace_within_memory(tracer, [rollout for _, rollout in rollouts], max_tokens=fewer)
            return
        died = Counter(_last_words([*lines, {"attempt": deaths + 1}]))
        for index, (key, rollout) in enumerate(rollouts):
            if died[key] >= SKIPPED:
                message = f"expected a process that traces it, got {died[key]} that died over it alone"
                yield index, Skipped(id=rollout.id, reason=WORKER_DIED, message=message)
                continue
            self._file.add([{"alone": key}])
            yield index, _alone(tracer, rollout)
        self._file.add([{"alone": ""}])

    def forget(self) -> None:
        """The results stand: attempts do not matter any more."""
        self._file.path.unlink(missing_ok=True)


def _alone(tracer: Tracer, rollout: Rollout) -> Trace | Skipped:
    return next(result for _, result in trace_within_memory(tracer, [rollout], max_tokens=1))


def _last_words(lines: Sequence[dict[str, object]]) -> Iterator[str]:
    """Keys of the rollouts that were noted last before another attempt began."""
    for before, line in pairwise(lines):
        if "attempt" in line and before.get("alone"):
            yield str(before["alone"])
