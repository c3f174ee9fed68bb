"""Stored rollouts traced by a pool of Ray actors, on one machine or many.

1. One task reads the input and sends it window by window (`parts.py`), as fast as windows are taken.
2. Each of the actors holds the model. What it makes of a window it writes itself; to the driver it says a line. So
   neither driver nor object store ever hold more than some windows.
3. Ray restarts an actor that died, on another machine if need be, and gives its windows out again. `attempts.py` sees
   to it that this ends.

The folder, and the input unless it is on the hub, must be seen under the same path by all machines. A mistake of the
user travels as a line too, so that it is raised here as what it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flowtracer.errors import CaptureError, FlowTracerError, FormatError, InputError, MissingDependencyError
from flowtracer.model.load import PACKAGED, SMOLLM2
from flowtracer.trace.records import read_rollouts
from flowtracer.trace.sources import HUB
from flowtracer.tracing.job import TraceJob
from flowtracer.tracing.parts import Part, PartFolder, decode_window, encode_window, part_file, windows


def trace_with_ray(job: TraceJob, actors: int | None = None) -> Iterator[Part]:
    """Trace what the folder does not hold; yields parts as they stand, in no order.

    Args:
        job: What is traced.
        actors: Processes that hold the model; None for one a GPU, or a single one where there is none.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: The cluster has no room for so many; or whatever reading and tracing raise of their own.
    """
    job = _from_root(job)
    ray = _connected()
    size, needs = _pool(ray, actors, job.device)
    with _a_block_for_each_row(ray.data.DataContext.get_current()):
        read = ray.data.from_items([{"job": 0}], override_num_blocks=1).map_batches(
            _read, fn_args=(job,), batch_size=None, batch_format="pyarrow", num_cpus=0
        )
        traced = read.map_batches(
            _Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=size),
            **needs,
        )
    for batch in traced.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for line in batch["line"].to_pylist():
            yield _heard(line, job)


def _from_root(job: TraceJob) -> TraceJob:
    """A worker may stand in another folder."""
    where = job.rollouts if job.rollouts.startswith(HUB) else str(Path(job.rollouts).resolve())
    is_path = job.model not in (*PACKAGED, SMOLLM2) and Path(job.model).exists()
    model = str(Path(job.model).resolve()) if is_path else job.model
    return replace(job, rollouts=where, out=job.out.resolve(), model=model)


def _read(_: Any, job: TraceJob) -> Iterator[Any]:
    """Windows of the input, each a row, and at last what went wrong, if anything did."""
    try:
        for place, records in windows(read_rollouts(job.rollouts, limit=job.limit), job.window):
            yield _row(place=place, window=encode_window(records))
    except FlowTracerError as error:
        yield _row(line=_said(error))


class _Worker:
    """Holds the model, and makes parts of windows."""

    def __init__(self, job: TraceJob) -> None:
        self._job = job
        self._mistake: str | None = None
        try:
            self._loaded = job.load()
            self._folder = PartFolder(
                job.out, self._loaded.options, model=self._loaded.digest, keep_traces=job.keep_traces
            )
        except FlowTracerError as error:
            self._mistake = _said(error)

    def __call__(self, batch: Any) -> Any:
        [given] = batch.to_pylist()
        return _row(line=given["line"] or self._mistake or self._made(given["place"], given["window"]))

    def _made(self, place: int, window: bytes) -> str:
        tracer, finish = self._loaded.tracer, self._loaded.finish
        records = decode_window(window)
        try:
            part = self._folder.make(place, records, tracer, max_tokens=self._job.max_tokens, finish=finish)
        except FlowTracerError as error:
            return _said(error)
        except OSError as error:  # a full disk, a folder that is gone
            return _said(InputError(f"expected a folder that can be written, got {str(self._job.out)!r}: {error}"))
        return json.dumps({"part": asdict(part)})


_KINDS = {kind.__name__: kind for kind in (InputError, CaptureError, FormatError, MissingDependencyError)}


def _said(error: FlowTracerError) -> str:
    kind = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
    return json.dumps({"error": kind, "message": str(error)})


def _heard(line: str, job: TraceJob) -> Part:
    said = json.loads(line)
    if "error" in said:
        raise _KINDS[said["error"]](said["message"])
    part = Part(**said["part"])
    if not part_file(job.out, part.name).exists():
        raise InputError(
            f"expected a folder that all machines see, got {str(job.out)!r}, in which a worker wrote {part.name} that "
            "is not there from here; choose one on shared storage"
        )
    return part


def _row(*, place: int = -1, window: bytes = b"", line: str = "") -> Any:
    import pyarrow

    return pyarrow.table({"place": [place], "window": [window], "line": [line]})


def _connected() -> Any:
    """Ray, connected to the cluster that the environment names, or else started on this machine."""
    # Its lines about itself would stand between ours; those of the cluster are in its logs.
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
    try:
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            'expected Ray for --engine ray, got none: pip install "flowtracer[ray]", or leave the option out'
        ) from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    return ray


def _pool(ray: Any, actors: int | None, device: str | None) -> tuple[int, dict[str, int]]:
    """How many actors, and what each of them takes of a machine."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(machine.get(kind, 0)) for machine in machines] for kind in ("CPU", "GPU"))
    on_gpu = device.startswith("cuda") if device else sum(gpus) > 0
    room, what = (sum(gpus), "GPUs") if on_gpu else (sum(cpus), "CPU cores")
    size = actors or (room if on_gpu else 1)
    if not 0 < size <= room:
        raise InputError(
            f"expected a cluster with room for {size} actors, got {room} {what} on {len(machines)} machines; lower "
            "--actors, or start more nodes"
        )
    if on_gpu:
        return size, {"num_gpus": 1}
    # As many cores each as all of them can have, since no actor spans machines; Ray sets torch's threads by that.
    return size, {"num_cpus": next(n for n in range(sum(cpus) // size, 0, -1) if sum(c // n for c in cpus) >= size)}


@contextmanager
def _a_block_for_each_row(context: Any) -> Iterator[None]:
    """Data sets that are made here hand windows on one by one; Ray would gather 128 MiB of them for one actor."""
    size, bars = context.target_max_block_size, context.enable_progress_bars
    context.target_max_block_size, context.enable_progress_bars = 1, False
    try:
        yield
    finally:
        context.target_max_block_size, context.enable_progress_bars = size, bars
