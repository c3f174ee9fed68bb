"""How many responses of a batch have an answer, as a trainer logs it, and what it says where none has."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping

_MISSES = ("no_answer", "empty_answer", "unclosed_box", "empty_response", "no_flow")
_PREFIX = "credit/miss/"


def miss_shares(misses: Counter[str], batch: int) -> dict[str, float]:
    """Share of responses by reason of a miss; every process must log the same names."""
    return {f"{_PREFIX}{reason}": misses[reason] / batch for reason in _MISSES}


def warn_unanswered(metrics: Mapping[str, float]) -> None:
    """Say so where not one of a run's first responses has an answer: it would go on as plain GRPO without a word."""
    if metrics.get("credit/answered") != 0:
        return
    why = {name.removeprefix(_PREFIX): share for name, share in metrics.items() if name.startswith(_PREFIX) and share}
    reasons = ", ".join(f"{reason} {share:.0%}" for reason, share in why.items())
    warnings.warn(
        f"expected answers in the first responses, got none ({reasons or 'none in time'}): without one every token "
        "keeps the response's own advantage, which is plain GRPO; allow longer responses, or say by "
        "answer_pattern how they state their answer",
        stacklevel=2,
    )
