"""What many rollouts come to at a glance, out of one row for each."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flowtracer.folders import write_atomically
from flowtracer.trace.rollout_table import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a folder of traces says at a glance."""

    rollouts: int
    traced: int
    skipped: Mapping[str, int]
    """Rollouts that were not traced, by reason."""
    tokens: int
    largest_conservation_error: float
    hub_words: Sequence[tuple[str, int]]
    """Words that are hubs most often, with how many traces' top hubs they are among."""
    share_through_hubs: Mapping[str, float]
    """Mean share of the flow that passes the top hubs: of all traces, and of right and wrong ones where graded."""
    backbone_edges_per_token: float
    """Mean number of edges, over the number of tokens, that carry half of the flow by themselves."""

    def write(self, folder: Path) -> None:
        """Write `summary.json`."""
        write_atomically(folder / "summary.json", json.dumps(asdict(self), indent=2) + "\n")


class Tally:
    """Adds rows up."""

    COLUMNS = ("reason", "tokens", "correct", "hub_share", "hubs", "backbone_edges", "conservation_error")
    """Those of a row that are looked at."""

    def __init__(self) -> None:
        self._skipped: Counter[str] = Counter()
        self._hubs: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._shares: defaultdict[str, float] = defaultdict(float)
        self._tokens, self._worst, self._edges = 0, 0.0, 0.0

    def add(self, row: Row) -> None:
        """Count one rollout."""
        if row.get("reason") is not None:
            self._skipped[row["reason"]] += 1
            return
        self._tokens += row["tokens"]
        self._worst = max(self._worst, row["conservation_error"])
        self._edges += row["backbone_edges"] / row["tokens"]
        self._hubs.update(sorted(set(row["hubs"])))  # ties in a stable order
        correct = row["correct"]
        for group in ("all",) if correct is None else ("all", "right" if correct else "wrong"):
            self._counts[group] += 1
            self._shares[group] += row["hub_share"]

    def summary(self) -> Summary:
        """Of all rows so far."""
        traced = self._counts["all"]
        return Summary(
            rollouts=traced + self._skipped.total(),
            traced=traced,
            skipped=dict(self._skipped.most_common()),
            tokens=self._tokens,
            largest_conservation_error=self._worst,
            hub_words=self._hubs.most_common(10),
            share_through_hubs={group: share / self._counts[group] for group, share in self._shares.items()},
            backbone_edges_per_token=self._edges / max(traced, 1),
        )
