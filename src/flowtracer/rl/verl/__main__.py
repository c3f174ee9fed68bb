"""Whether verl loads FlowTracer here, and what stops it: verl itself says that at its DEBUG level alone.

python -m flowtracer.rl.verl
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

from rich.console import Console


def main() -> int:
    """Load the plug-in in the open, so that its failure is seen."""
    from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

    from flowtracer.rl.verl import plugin
    from flowtracer.rl.verl.options import MODE

    console = Console()
    policy = os.getenv("VERL_USE_EXTERNAL_PLUGINS", "auto")
    console.print(
        f"verl {importlib.metadata.version('verl')}, transformers {importlib.metadata.version('transformers')}"
    )
    named = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="verl.plugins")}
    if plugin.__name__ not in named.values():
        console.print("[red]no entry point verl.plugins of flowtracer[/red]: install it (pip install, not a path)")
        return 1
    if policy not in ("auto",) and "flowtracer" not in policy.split(","):
        console.print(
            f"[red]VERL_USE_EXTERNAL_PLUGINS={policy}[/red] leaves flowtracer out: unset it, or name it there"
        )
        return 1
    console.print(f"trainer.v1.trainer_mode={MODE}: {TRAINER_REGISTRY[MODE].__module__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
