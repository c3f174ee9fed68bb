"""Credit by token in verl's trainer on Ray, as a plug-in; docs/verl.md says how it is used.

verl is imported here, before any module of this package: importing it loads its plug-ins, this package among them,
which must not find one of its own modules half imported.
"""

from __future__ import annotations

from flowtracer.errors import MissingDependencyError

try:
    import verl  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        f'expected verl, got {error}: pip install "flowtracer[verl]" in an environment of its own'
    ) from error
