"""Hubs of real solutions: would a person name them, what do steps carry, and does hiding them matter?

    python experiments/hubs.py gsm8k_model_solutions.jsonl --solutions 20 --effects 12

Reads grade-school-math's model solutions (`question`, and four models' solutions), problems spread over the file and
the models in turn, and traces them with SmolLM2.

1. *Named*: the share of the five largest hubs that are a word, a number or a step. Articles, prepositions and the like,
   operators, and marks are not, nor is what belongs to the answer's cue. Tokens by flow are what hubs were before.
2. *Paths*: the share of the most probable walk through tokens, and of ways through words and steps.
3. *Effects*: of the shortest solutions every word and every step before the answer's cue is hidden in turn; by rank
   correlation with the change of log p(answer), which order is best, and what share of all change do its first have?

Tables go to `results/hubs_gsm8k.json` and `.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from rich.table import Table

import flowtracer as ft
from flowtracer.checks.masking import hidden_effects
from flowtracer.intervals import Interval, mean_interval
from flowtracer.trace.units import answer_span
from outcome import write_outcome

HUBS = 5
"""As many as a summary of many traces counts."""
FIRST = {"words": 5, "steps": 1}
"""Solutions have two to five steps, of which five would be all."""
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
# What a person would not answer to "which words?".
UNNAMED = frozenset(
    {
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "do", "does", "for", "from", "had", "has"),
        *("have", "he", "her", "his", "if", "in", "is", "it", "its", "of", "on", "or", "per", "s", "she", "so"),
        *("that", "the", "their", "them", "then", "there", "they", "this", "to", "was", "we", "were", "will"),
        *("with", "you"),
    }
)
Measured = dict[str, list[float]]


def main() -> None:
    """Trace, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--solutions", type=int, default=20)
    parser.add_argument("--effects", type=int, default=12, help="solutions of which every word and step is hidden")
    options = parser.parse_args()
    tracer = ft.Tracer.from_pretrained("smollm2")
    rollouts = list(itertools.islice(solutions(options.file, options.solutions), options.solutions))
    traces = (trace for _, trace in tracer.trace_stream(rollouts))
    read = [trace for trace in track(traces, "traces", len(rollouts)) if isinstance(trace, ft.Trace)]
    described: Measured = defaultdict(list)
    for trace in read:
        for name, value in {**named(trace), **paths(trace)}.items():
            described[name].append(value)
    orders: Measured = defaultdict(list)
    for trace in track(sorted(read, key=len)[: options.effects], "effects"):
        for name, value in effects(tracer.model, trace).items():
            orders[name].append(value)
    found = {name: mean_interval(np.array(values)) for name, values in {**described, **orders}.items()}
    document = {
        "model": "smollm2",
        "solutions": len(read),
        "effects": min(options.effects, len(read)),
        "found": {name: asdict(interval) for name, interval in found.items()},
        "traces": [looked_at(trace) for trace in read],
    }
    print(write_outcome("hubs_gsm8k", document, tables(found), heading="Hubs of GSM8K's model solutions, SmolLM2"))


def solutions(file: Path, count: int) -> Iterator[ft.Rollout]:
    """Problems spread evenly over the file, each with the solution of the next model."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for place, model in zip(range(13, len(lines), max(1, len(lines) // count)), itertools.cycle(MODELS), strict=False):
        record = json.loads(lines[place])
        yield ft.Rollout(
            prompt=[{"role": "user", "content": record["question"]}],
            response=re.sub(r"<<[^<>]*>>", "", record[model]["solution"]),
            id=f"{place}-{model}",
            metadata={"is_correct": record[model]["is_correct"]},
        )


def named(trace: ft.Trace) -> dict[str, float]:
    """Share of the hubs that a person would name, by what hubs are."""
    cue = answer_span(trace)
    reasoning = np.arange(trace.response.start, trace.answer.start)
    tokens = reasoning[np.argsort(-trace.flow[reasoning], kind="stable")[:HUBS]]
    before = [is_name(trace.label(token)) and token < cue.start for token in tokens]
    shares = {"named: tokens by flow, the cue among them": float(np.mean(before))}
    for level, by in itertools.product(("tokens", "words"), ("flow", "excess")):
        hubs = trace.hubs(HUBS, level=level, by=by)
        kinds = [hub.unit.kind in ("end", "step") or is_name(hub.label) for hub in hubs]
        shares[f"named: {level} by {by}"] = float(np.mean(kinds))
    hubs = trace.hubs(HUBS)
    shares |= {
        f"words by flow that are: {kind}": float(np.mean([hub.unit.kind == kind for hub in hubs]))
        for kind in ("number", "word", "end", "operator")
    }
    return shares


def is_name(label: str) -> bool:
    """Whether it is a number, or a word that says something."""
    return any(c.isalnum() for c in label) and label.lower() not in UNNAMED


def paths(trace: ft.Trace) -> dict[str, float]:
    """Shares of the most probable ways."""
    steps = trace.paths(9, level="steps")
    through = [path.share for path in steps if any(unit.kind == "step" for unit in path.units)]
    return {
        "share: best path through tokens": trace.paths(1, level="tokens")[0].share,
        "share: best path through words": trace.paths(1, level="words")[0].share,
        "share: best path through steps": steps[0].share,
        "share: best path through at least one step of the response": max(through, default=0.0),
        "share: the four best paths through steps": sum(path.share for path in steps[:4]),
        "share: passes the step that most flows through": max(
            (h.flow for h in trace.hubs(1, level="steps")), default=0.0
        ),
    }


def effects(model: Any, trace: ft.Trace) -> dict[str, float]:
    """Rank correlation of orders with the size of the effects, and what the first five of each do."""
    found: dict[str, float] = {}
    for level in ("words", "steps"):
        hubs = trace.hubs(len(trace), level=level)
        if len(hubs) < 3:
            continue
        change = np.abs(hidden_effects(model, trace, [hub.unit.span for hub in hubs]))
        flow = np.array([hub.flow for hub in hubs])
        place = np.array([hub.expected for hub in hubs])
        summed = np.array([trace.expected_flow[list(hub.unit.span)].sum() for hub in hubs])
        orders = {"flow": flow, "expected, by place": place, "position": np.array([h.token for h in hubs])}
        for name, expected in (("", place), (", sum of its tokens'", summed)):
            orders |= {
                f"flow - expected{name}": flow - expected,
                f"flow / expected{name}": flow / expected,
                f"flow log(flow / expected){name}": flow * np.log(flow / expected),
            }
        for name, order in orders.items():
            found[f"{level}: rank correlation: {name}"] = rank_correlation(order, change)
            first = np.argsort(-order, kind="stable")[: FIRST[level]]
            found[f"{level}: share in the first: {name}"] = float(change[first].sum() / change.sum())
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, ties sharing their mean rank."""
    ranks = [np.searchsorted(np.sort(x), x) + np.searchsorted(np.sort(x), x, side="right") for x in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def looked_at(trace: ft.Trace) -> dict[str, Any]:
    """What a reader is shown of a trace."""
    return {
        "trace": repr(trace),
        "summary": trace.summary(),
        "hubs": [repr(hub) for hub in trace.hubs(HUBS)],
        "paths": [repr(path) for path in trace.paths(3)],
    }


def tables(found: dict[str, Interval]) -> Iterator[Table]:
    """Hubs and paths, then orders by level."""
    table = Table("mean over solutions", "share", title="Hubs and paths")
    for name, interval in found.items():
        if ": rank" not in name and ": share in" not in name:
            table.add_row(name, interval.percent())
    yield table
    for level in ("words", "steps"):
        title = f"Hidden {level}; share of all change in the first {FIRST[level]}"
        table = Table("order", "rank correlation", "share", title=title)
        for name, interval in found.items():
            level_of, _, order = name.partition(": rank correlation: ")
            if order and level_of == level:
                shown = f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
                table.add_row(order, shown, found[f"{level}: share in the first: {order}"].percent())
        yield table


if __name__ == "__main__":
    main()
