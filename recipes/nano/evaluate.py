"""Accuracy of nano by task and difficulty on held-out problems, and the AUROC of signals on planted ones.

python recipes/nano/evaluate.py runs/nano/model --out runs/nano/card.json
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from data import MIXTURES, TASKS
from rich.console import Console
from rich.table import Table

from flowtracer.evaluation.accuracy import accuracy, judge, respond
from flowtracer.model.load import load_model


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    # Easy Countdown has no more than 374 in its test split.
    parser.add_argument("--problems", type=int, default=350)
    parser.add_argument("--mixture", choices=list(MIXTURES), default="nano", help="whose tasks")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    table = Table("task", "difficulty", "greedy", "sampled", "tokens, median", "95 %", "reasons")
    rows = []
    for name, difficulty in MIXTURES[options.mixture]:
        task = TASKS[name][difficulty]
        problems = task.problems("test", options.problems)
        greedy = respond(model, tokenizer, problems)
        verdicts = judge(task, problems, greedy)
        sampled = judge(task, problems, respond(model, tokenizer, problems, temperature=1.0))
        lengths = [len(ids) for ids in tokenizer(greedy)["input_ids"]]
        row = {
            "task": name,
            "difficulty": difficulty,
            "greedy": asdict(accuracy([v.correct for v in verdicts])),
            "sampled": asdict(accuracy([v.correct for v in sampled])),
            "tokens": [float(np.median(lengths)), float(np.percentile(lengths, 95))],
        }
        rows.append(row)
        reasons = [str(v.reason) for v in verdicts]
        counts = " ".join(f"{reason} {reasons.count(reason)}" for reason in sorted(set(reasons)))
        shown = [accuracy([v.correct for v in judged]).percent() for judged in (verdicts, sampled)]
        table.add_row(name, difficulty, *shown, *(f"{value:.0f}" for value in row["tokens"]), counts)
    Console(width=150).print(table)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
