"""What pages of results are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with numbers on the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(result: dict[str, Any]) -> str:
    """Where it was measured."""
    stamp = result["machine"]
    place = stamp["gpu"] or f"{stamp['processor']}, {result['threads']} of {stamp['cores']} cores"
    return f"{place}; torch {stamp['torch']}, transformers {stamp['transformers']}; {stamp['date']}."


def step_table(result: dict[str, Any]) -> str:
    """Credit within GRPO steps, by run."""
    rows = [
        [
            name,
            f"{run['seconds']['uniform']:.2f}",
            f"{run['over_uniform']['flow']:+.1%}",
            f"{run['inside_credit']['flow']:.1%}",
            f"{run['inside_credit']['flow, own forward']:.1%}",
            f"{run['own_forward']['flow']:.0%}",
        ]
        for name, run in result["runs"].items()
    ]
    header = ("run", "uniform, s", "flow over uniform", "inside credit", "with an own forward", "own forward")
    return markdown(header, rows)
