"""Whose scores order tokens by what hiding each of them does to the answer?

    flowtracer trace rollouts.jsonl --model smollm2 --effects all --out runs/hiding/gsm8k
    python experiments/hiding.py gsm8k --model smollm2 --by flow,attention,gradient,position,random

The traces hold the truth, the effect of every token before the answer (`flowtracer trace --effects all`, which goes on
where it was stopped); strategies of credit score the same responses, with options as `flowtracer meter` takes them:
"flow:at=prediction". The first is what the others are held against. Results go to `results/hiding_NAME.json` and `.md`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.progress import track

from flowtracer.checks.masking import TokenScorer, agreement_of, summarise_agreement
from flowtracer.checks.meter.strategies import parse_strategies
from flowtracer.errors import TraceError
from flowtracer.model.load import load_model
from flowtracer.report.terminal.masking import agreement_table
from flowtracer.trace import find_traces, load_trace
from outcome import write_outcome


def main() -> None:
    """Score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the folder of traces, and of the results")
    parser.add_argument("--model", required=True)
    parser.add_argument("--by", default="flow,attention,gradient,entropy,position,random")
    parser.add_argument("--work", type=Path, default=Path("runs/hiding"))
    options = parser.parse_args()
    scorer = TokenScorer(*load_model(options.model, dtype="float32"), parse_strategies(options.by))
    found, silent = [], 0
    for file in track(find_traces(options.work / options.name), options.name):
        try:
            found.append(agreement_of(scorer, load_trace(file)))
        except TraceError:
            silent += 1
    rows = summarise_agreement(found)
    document = {"model": options.model, "responses": len(found), "silent": silent, "scores": [asdict(r) for r in rows]}
    heading = f"{options.name}, {options.model}"
    print(write_outcome(f"hiding_{options.name}", document, [agreement_table(rows, scorer.names[0])], heading=heading))


if __name__ == "__main__":
    main()
