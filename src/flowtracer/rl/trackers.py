"""Traces to whatever a trainer reports to, through the callbacks that it already has.

TensorBoard takes figures, where matplotlib is installed; wandb and trackio take the page itself. A tracker that the
trainer does not report to is neither imported nor required.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowtracer.trace.trace import Trace


def log_traces(callbacks: Iterable[Any], traces: Mapping[str, Trace], step: int) -> None:
    """Log traces by name to the trackers among a trainer's callbacks."""
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            if importlib.util.find_spec("matplotlib") is not None:
                for name, trace in traces.items():
                    callback.tb_writer.add_figure(f"traces/{name}", trace.figure("positions"), step)
        elif isinstance(callback, WandbCallback):
            import wandb

            if wandb.run is not None:
                wandb.log({**_pages(wandb.Html, traces), "train/global_step": step})
        elif isinstance(callback, TrackioCallback):
            import trackio

            trackio.log(_pages(trackio.Html, traces), step=step)


def _pages(html: Any, traces: Mapping[str, Trace]) -> dict[str, Any]:
    """Each page in a tracker's own wrapper, which must add nothing to it: the page brings its own styles and policy."""
    pages = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, trace in traces.items():
            page = trace.to_html(Path(folder) / "trace.html").read_text(encoding="utf-8")
            pages[f"traces/{name}"] = html(page, inject=False)
    return pages
