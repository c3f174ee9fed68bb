"""What a trainer reports to: traces through the callbacks that it already has, and what happens when one is away.

TensorBoard takes figures, where matplotlib is installed; wandb and trackio take the page itself. A tracker that the
trainer does not report to is neither imported nor required.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flowtracer.trace.trace import Trace


def outlive_trackers(callbacks: Iterable[Any]) -> None:
    """Have a run go on without a tracker whose server is away: it is named once, and told nothing more."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    kinds = tuple(INTEGRATION_TO_CALLBACK.values())
    for callback in callbacks:
        if isinstance(callback, kinds):
            for event in (name for name in dir(callback) if name.startswith("on_")):
                setattr(callback, event, _forgiving(callback, getattr(callback, event)))


def _forgiving(tracker: Any, event: Callable[..., Any]) -> Callable[..., Any]:
    """A tracker's answer to an event, or none once it has failed."""

    @functools.wraps(event)
    def answer(*args: Any, **kwargs: Any) -> Any:
        if getattr(tracker, _AWAY, False):
            return None
        try:
            return event(*args, **kwargs)
        except Exception as error:  # whatever its client raises; a run is worth more than its curves
            setattr(tracker, _AWAY, True)
            name = type(tracker).__name__.removesuffix("Callback")
            warnings.warn(
                f"expected {name} to take what the run reports, got {error!r}; the run goes on without it, and "
                "log.jsonl has every step",
                stacklevel=2,
            )
            return None

    return answer


_AWAY = "flowtracer_found_it_away"


def log_traces(callbacks: Iterable[Any], traces: Mapping[str, Trace], step: int) -> None:
    """Log traces by name to the trackers among a trainer's callbacks."""
    from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

    for callback in (callback for callback in callbacks if not getattr(callback, _AWAY, False)):
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
