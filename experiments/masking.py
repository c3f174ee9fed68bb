"""The causal check of nano on its own responses: which strategies' tokens does the answer depend on?

    python experiments/masking.py --problems 300

nano answers held-out Countdown and planted problems greedily; tokens of its reasoning are hidden by each strategy, and
it answers again (docs/masking.md). Outcomes go to `runs/masking/TASK`, so that an interrupted check goes on; tables to
`results/masking_TASK.json` and `.md`. Other models and real rollouts: `flowtracer mask`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import track

from flowtracer.evaluate import respond
from flowtracer.masking import MaskingCheck, MaskingFolder, MaskingSummary
from flowtracer.models import load_model
from flowtracer.report.terminal_masking import masking_tables
from flowtracer.tasks import Countdown, Planted, Problem, Task
from flowtracer.trace import Rollout

RESULTS = Path(__file__).with_name("results")
TASKS: dict[str, Task] = {
    "countdown": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
    "planted": Planted(chains=2, length=3),
}
STRATEGIES = ("flow", "attention", "gradient", "entropy", "local", "position")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> None:
    """Check, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--by", default=",".join(STRATEGIES))
    options = parser.parse_args()
    from machine import stamp

    model, tokenizer = load_model(options.model)
    for name, task in TASKS.items():
        problems = {problem.id: problem for problem in task.problems("test", options.problems)}
        responses = respond(model, tokenizer, list(problems.values()))
        rollouts = [
            Rollout(id=problem.id, prompt=problem.prompt, response=response)
            for problem, response in zip(problems.values(), responses, strict=True)
        ]
        check = MaskingCheck(model, tokenizer, by=options.by.split(","), grade=grader(task, problems))
        folder = MaskingFolder(Path("runs/masking") / name, vars(options))
        for _ in track(folder.check(check, rollouts), name, total=len(rollouts)):
            pass
        summary = folder.summarise()
        text = markdown(summary)
        document = {"model": options.model, "task": name, "machine": stamp(), **asdict(summary)}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"masking_{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (RESULTS / f"masking_{name}.md").write_text(text)
        print(text)


def grader(task: Task, problems: dict[str, Problem]) -> Callable[[Rollout, str], bool]:
    """An answer is right where the task says so."""
    return lambda rollout, answer: task.verify(problems[rollout.id], f"<answer>{answer}</answer>").correct


def markdown(summary: MaskingSummary) -> str:
    """The tables that `flowtracer mask` prints."""
    text = io.StringIO()
    for table in masking_tables(summary):
        table.box = box.MARKDOWN
        title, table.title = table.title, None
        text.write(f"{title}\n")
        Console(file=text, width=200).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    main()
