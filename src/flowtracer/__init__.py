"""FlowTracer: how a language model's reasoning flows from question to answer."""

__version__ = "0.1.0"
