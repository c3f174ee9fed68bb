"""Many rollouts into one folder, resumable.

    out/options.json         what the folder was made with; a later run must agree
    out/traces/*.safetensors one trace a rollout
    out/skipped.jsonl        rollouts that could not be read or traced, and why
    out/tokens.parquet       one row a token, over all traces
    out/summary.json         the numbers of the summary table

Traces are written as soon as they are made and never twice, so a run that was killed goes on where it stopped; the
table and the summary are rebuilt from the traces at the end.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowtracer.folders import as_lines, claim
from flowtracer.trace.records import safe_name
from flowtracer.trace.table import TokenTableWriter
from flowtracer.trace.trace import Rollout, Skipped, Trace, load_trace
from flowtracer.tracing.tracer import Tracer

HUBS_PER_TRACE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a folder of traces says at a glance."""

    rollouts: int
    traced: int
    skipped: Mapping[str, int]
    """Rollouts that were not traced, by reason."""
    tokens: int
    largest_conservation_error: float
    hub_tokens: Sequence[tuple[str, int]]
    """Texts of the most frequent hubs, with how many traces' top hubs they are among."""
    share_through_hubs: Mapping[str, float]
    """Mean share of the flow that passes the top hubs: of all traces, and of right and wrong ones where graded."""
    backbone_edges_per_token: float
    """Mean number of edges, over the number of tokens, that carry half of the flow by themselves."""


class TraceFolder:
    """A folder of traces.

    Args:
        path: Made if it does not exist.
        options: What the traces depend on; must be what an earlier run in this folder was given.

    Raises:
        InputError: The folder cannot be written, or holds traces made with other options.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        self.traces = path / "traces"
        claim(path, options)
        self.traces.mkdir(exist_ok=True)

    def trace(
        self,
        tracer: Tracer,
        records: Sequence[Rollout | Skipped],
        *,
        max_tokens: int = 4096,
        finish: Callable[[Trace], Trace] | None = None,
    ) -> Iterator[Skipped | Path]:
        """Trace what the folder does not hold yet; yields each outcome as soon as it stands on disk.

        Args:
            tracer: Reads the model.
            records: In the order of the folder's files.
            max_tokens: Tokens of one forward, padding included.
            finish: What else to measure of a trace before it is written.
        """
        skipped: list[Skipped] = []
        pending: list[tuple[Path, Rollout]] = []
        for index, record in enumerate(records):
            if isinstance(record, Skipped):
                skipped.append(record)
                yield record
                continue
            file = self.traces / f"{index:06d}-{safe_name(record.id)}.safetensors"
            if file.exists():
                yield file
            else:
                pending.append((file, record))
        for position, result in tracer.trace_stream([rollout for _, rollout in pending], max_tokens=max_tokens):
            if isinstance(result, Skipped):
                skipped.append(result)
                yield result
            else:
                yield _write(finish(result) if finish else result, pending[position][0])
        (self.path / "skipped.jsonl").write_text(as_lines(map(asdict, skipped)), encoding="utf-8")

    def files(self) -> list[Path]:
        """Trace files, in the order of their rollouts."""
        return sorted(self.traces.glob("*.safetensors"))

    def summarise(self) -> Summary:
        """Rebuild the token table and the summary from the traces on disk."""
        skipped_lines = (self.path / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
        skipped = Counter(json.loads(line)["reason"] for line in skipped_lines)
        hubs: Counter[str] = Counter()
        shares: dict[str, list[float]] = {}
        tokens, worst, edges = 0, 0.0, []
        files = self.files()
        with TokenTableWriter(self.path / "tokens.parquet") as table:
            for file in files:
                trace = load_trace(file)
                table.write(file.stem, trace)
                tokens += len(trace)
                worst = max(worst, trace.conservation_error())
                edges.append(len(trace.backbone(0.5).edges) / len(trace))
                found = [hub.token for hub in trace.hubs(HUBS_PER_TRACE)]
                hubs.update(sorted({trace.tokens[token] for token in found}))  # ties in a stable order
                for group in ("all", *_graded(trace)):
                    shares.setdefault(group, []).append(trace.share_through(found))
        summary = Summary(
            rollouts=len(files) + len(skipped_lines),
            traced=len(files),
            skipped=dict(skipped.most_common()),
            tokens=tokens,
            largest_conservation_error=worst,
            hub_tokens=hubs.most_common(10),
            share_through_hubs={group: sum(values) / len(values) for group, values in shares.items()},
            backbone_edges_per_token=sum(edges) / max(len(edges), 1),
        )
        (self.path / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
        return summary


def _write(trace: Trace, file: Path) -> Path:
    """Write under another name first, so that a kill leaves no half trace behind."""
    partial = file.with_suffix(".partial")
    trace.save(partial)
    return partial.replace(file)


def _graded(trace: Trace) -> list[str]:
    correct = trace.metadata.get("is_correct")
    return [] if correct is None else ["right" if correct else "wrong"]
