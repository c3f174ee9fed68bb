"""What many rollouts are traced with, told before a model is loaded: here, or by processes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtracer.model.load import load_with_processor, model_digest
from flowtracer.trace.trace import Trace
from flowtracer.tracing.tracer import Tracer

Finish = Callable[[Trace], Trace]
"""What else is measured of a trace before it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A job's model, ready."""

    tracer: Tracer
    finish: Finish | None
    options: Mapping[str, Any]
    """What the folder is claimed with."""
    digest: str
    """Of the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """What is to be traced, with what, and where to."""

    rollouts: str
    """As `read_rollouts` takes it."""
    limit: int | None
    out: Path
    options: Mapping[str, Any]
    """What the folder is claimed with, beside the choices of the tracer."""
    model: str
    device: str | None
    dtype: str | None
    tracer: Mapping[str, Any]
    """Options of `Tracer`."""
    max_tokens: int
    measure: Callable[[Any], Finish | None]
    """Makes of the model what else is measured."""
    keep_traces: bool = True
    window: int = 256
    """Rollouts of a part: enough that those of a forward are of similar length, few enough to be traced again."""

    def load(self) -> Loaded:
        """Load the model.

        Raises:
            InputError: Nothing loadable under that name, or an option that does not exist.
            MissingDependencyError: A package that the model needs is not installed.
            CaptureError: The model's attention cannot be read.
        """
        model, tokenizer = load_with_processor(self.model, device=self.device, dtype=self.dtype)
        tracer = Tracer(model, tokenizer, **self.tracer)
        # Folders of attention over tokens are claimed as they were before there was a choice.
        plain = (tracer.capacity, tracer.graph) == ("attention", "tokens")
        over = {} if plain else {"capacity": tracer.capacity, "graph": tracer.graph, "ends": tracer.ends}
        if pattern := self.tracer.get("answer_pattern"):
            over["answer_pattern"] = pattern
        return Loaded(
            tracer=tracer,
            finish=self.measure(model),
            options={**self.options, "at": tracer.at, **over},
            digest=model_digest(self.model, model),
        )
