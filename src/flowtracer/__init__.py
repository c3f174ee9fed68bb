"""FlowTracer: how a language model's reasoning flows from question to answer.

The public names load on first use, so that importing the package costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from flowtracer.checks.meter import MeterOptions, MeterResult, meter
    from flowtracer.credit import CREDITS
    from flowtracer.flow import FlowResult, compute_flow
    from flowtracer.rl.own_loop import CreditWeights, credit_weights
    from flowtracer.tasks import TASKS
    from flowtracer.text.span import Span
    from flowtracer.trace.compare import Comparison, compare
    from flowtracer.trace.group import GroupComparison, compare_group
    from flowtracer.trace.trace import Rollout, Skipped, Trace, load_trace
    from flowtracer.tracing.tracer import Tracer

_HOME = {
    "CREDITS": "credit",
    "Comparison": "trace.compare",
    "CreditWeights": "rl.own_loop",
    "FlowResult": "flow",
    "GroupComparison": "trace.group",
    "MeterOptions": "checks.meter",
    "MeterResult": "checks.meter",
    "Rollout": "trace",
    "Skipped": "trace",
    "Span": "text.span",
    "TASKS": "tasks",
    "Trace": "trace",
    "Tracer": "tracing.tracer",
    "compare": "trace.compare",
    "compare_group": "trace.group",
    "compute_flow": "flow",
    "credit_weights": "rl.own_loop",
    "load_trace": "trace",
    "meter": "checks.meter",
}

__all__ = [
    "CREDITS",
    "TASKS",
    "Comparison",
    "CreditWeights",
    "FlowResult",
    "GroupComparison",
    "MeterOptions",
    "MeterResult",
    "Rollout",
    "Skipped",
    "Span",
    "Trace",
    "Tracer",
    "compare",
    "compare_group",
    "compute_flow",
    "credit_weights",
    "load_trace",
    "meter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'flowtracer' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"flowtracer.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
