"""Is the picture true? AUROC of signals for needed against distractor steps, on planted problems that nano solves.

    python experiments/planted_truth.py --problems 400

Writes `results/planted_truth.json` and `.md`: every signal by band of layers, with bootstrap intervals over problems.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.progress import track

from flowtracer.faithfulness import ATTENTION_SIGNALS, CONTROLS, Faithfulness, faithfulness
from flowtracer.models import load_model
from flowtracer.tasks import Planted

RESULTS = Path(__file__).with_name("results")
BANDS = ("early", "middle", "late", "all")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=400)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--length", type=int, default=3)
    options = parser.parse_args()
    from machine import stamp

    task = Planted(chains=options.chains, length=options.length)
    problems = task.problems("test", options.problems)
    steps = iter(track(problems, "judging"))
    result = faithfulness(*load_model(options.model), task, problems, on_problem=lambda: next(steps))
    text = table(result, options.model, task)
    print(text)
    rows = [{"signal": name, "band": band, **asdict(value)} for (name, band), value in result.auroc.items()]
    document = {"machine": stamp(), "options": vars(options), "problems": result.problems, "right": result.right}
    (RESULTS / "planted_truth.json").write_text(json.dumps(document | {"rows": rows}, indent=1) + "\n")
    (RESULTS / "planted_truth.md").write_text(text)


def table(result: Faithfulness, model: str, task: Planted) -> str:
    """AUROC by signal and band, in Markdown."""
    lines = [
        f"AUROC of needed against distractor steps, {model} on planted problems with {task.chains} chains of "
        f"{task.length}: mean over the {result.right} of {result.problems} that it concludes rightly, 95 % interval.",
        "",
        f"| signal | {' | '.join(BANDS)} |",
        "|---|" + "---|" * len(BANDS),
    ]
    for name in ATTENTION_SIGNALS:
        cells = [result.auroc[name, band] for band in BANDS]
        lines.append(f"| {name} | " + " | ".join(f"{c.mean:.2f} [{c.low:.2f}, {c.high:.2f}]" for c in cells) + " |")
    for name in CONTROLS:
        cell = result.auroc[name, "none"]
        lines.append(f"| {name} (control) | {cell.mean:.2f} [{cell.low:.2f}, {cell.high:.2f}] | | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
