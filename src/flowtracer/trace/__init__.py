"""Saved traces: what they hold and what can be read off them, without torch and without the model."""

from flowtracer.trace.images import TraceImage
from flowtracer.trace.trace import Rollout, Skipped, Step, Trace, TrainedOn, find_traces, load_trace

__all__ = ["Rollout", "Skipped", "Step", "Trace", "TraceImage", "TrainedOn", "find_traces", "load_trace"]
