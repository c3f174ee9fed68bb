"""Tracing on where memory ran out: forwards of half as many tokens, at last each rollout alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from flowtracer.trace.trace import Rollout, Skipped, Trace
from flowtracer.tracing.tracer import Tracer

OUT_OF_MEMORY = "out_of_memory"


def trace_within_memory(
    tracer: Tracer, rollouts: Sequence[Rollout], *, max_tokens: int
) -> Iterator[tuple[int, Trace | Skipped]]:
    """`tracer.trace_stream`, which goes on when memory runs out.

    Each time that it does, what is left runs in forwards of half as many tokens. A rollout that does not fit alone is
    skipped by name.
    """
    left = dict(enumerate(rollouts))
    while left and max_tokens > 1:
        places = list(left)
        try:
            for index, result in tracer.trace_stream([left[place] for place in places], max_tokens=max_tokens):
                del left[places[index]]
                yield places[index], result
            return
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        _release()  # not before the error is gone, which holds what its frames held
        max_tokens //= 2
    for place, rollout in left.items():
        yield place, _trace_alone(tracer, rollout)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no more to give; on a CPU torch says so in words alone."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in said)
    )


def _trace_alone(tracer: Tracer, rollout: Rollout) -> Trace | Skipped:
    try:
        return tracer.trace_batch([rollout])[0]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = (
            f"expected memory for one rollout alone, got {str(error).splitlines()[0]}; lower --memory-budget, or "
            "choose a larger device"
        )
    _release()
    return Skipped(id=rollout.id, reason=OUT_OF_MEMORY, message=message)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
