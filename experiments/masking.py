"""The causal check of nano on its own responses: which strategies' tokens does the answer depend on?

    python experiments/masking.py --problems 300

nano answers held-out Countdown and planted problems greedily; tokens of its reasoning are hidden by each strategy, and
it answers again (docs/masking.md). Outcomes go to `runs/masking/TASK`, so that an interrupted check goes on; tables to
`results/masking_TASK.json` and `.md`. Other models and real rollouts: `flowtracer mask`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.progress import track

from flowtracer.checks.masking import MaskingCheck, MaskingFolder, Outcome
from flowtracer.evaluation.accuracy import respond
from flowtracer.model.load import load_model, model_digest
from flowtracer.report.terminal.masking import masking_tables
from flowtracer.tasks import Countdown, Planted, Problem, Task
from flowtracer.trace.trace import Rollout
from outcome import write_outcome

TASKS: dict[str, Task] = {
    "countdown": Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20, max_target=100),
    "planted": Planted(chains=2, length=3),
}
STRATEGIES = ("flow", "attention", "gradient", "entropy", "local", "position")


def main() -> None:
    """Check, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--by", default=",".join(STRATEGIES))
    options = parser.parse_args()
    model, tokenizer = load_model(options.model)
    for name, task in TASKS.items():
        problems = {problem.id: problem for problem in task.problems("test", options.problems)}
        responses = respond(model, tokenizer, list(problems.values()))
        rollouts = [
            Rollout(id=problem.id, prompt=problem.prompt, response=response)
            for problem, response in zip(problems.values(), responses, strict=True)
        ]
        check = MaskingCheck(model, tokenizer, by=options.by.split(","), grade=grader(task, problems))
        folder = MaskingFolder(Path("runs/masking") / name, vars(options), model=model_digest(options.model, model))
        results = list(track(folder.check(check, rollouts), name, total=len(rollouts)))
        summary = folder.summarise([result for result in results if isinstance(result, Outcome)])
        document = {"model": options.model, "task": name, **asdict(summary)}
        print(write_outcome(f"masking_{name}", document, masking_tables(summary), heading=repr(task)))


def grader(task: Task, problems: dict[str, Problem]) -> Callable[[Rollout, str], bool]:
    """An answer is right where the task says so."""
    return lambda rollout, answer: task.verify(problems[rollout.id], f"<answer>{answer}</answer>").correct


if __name__ == "__main__":
    main()
