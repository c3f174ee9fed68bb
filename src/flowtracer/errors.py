"""What can go wrong, as a caller sees it.

Every message says what was expected, what was got and what to do. Each kind is also a built-in exception,
so that code which knows nothing of FlowTracer can still catch it.
"""


class FlowTracerError(Exception):
    """Base of every error that FlowTracer raises on purpose."""


class InputError(FlowTracerError, ValueError):
    """The caller's data or options cannot be used as they are."""


class TraceError(InputError):
    """One rollout cannot be traced; a batch goes on without it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """One word, to count by."""


class CaptureError(FlowTracerError, RuntimeError):
    """The model's attention could not be read."""


class FormatError(FlowTracerError, ValueError):
    """A file is not what its name or schema says."""


class StorageError(FlowTracerError, OSError):
    """A result could not be written: a full disk, a folder that vanished."""


class MissingDependencyError(FlowTracerError, ImportError):
    """An optional library is needed and not installed."""
