"""The demo: a small model learns in minutes, and one problem shows how its reasoning changed.

1. Greedy accuracy of nano on held-out Countdown problems.
2. GRPO with flow credit, as the run file beside this module says.
3. The same problems again: the gain, paired, with its interval.
4. Of the problems that went from wrong to right, the one whose answer draws most of its flow through few tokens is
   traced before and after: a page for each, and one that holds them side by side.

Responses, checkpoints and traces are kept in the output folder, so a demo that was interrupted goes on where it
stopped, and one that is done only shows its result again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowtracer.evaluation.accuracy import accuracy, gain, judge, respond
from flowtracer.folders import claim, lock, write_atomically
from flowtracer.intervals import Interval
from flowtracer.model.load import load_model
from flowtracer.report.page.comparison import comparison_page
from flowtracer.report.page.html import write_page
from flowtracer.rl.run import LogLine, RunFile, read_run_file, train
from flowtracer.tasks import Problem, Verdict, make_task
from flowtracer.trace.compare import compare
from flowtracer.trace.measures import hub_share
from flowtracer.trace.trace import Rollout, Trace
from flowtracer.tracing.tracer import Tracer

RUN_FILE = Path(__file__).with_name("demo.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    steps: int | None
    """None: what the run file says."""
    problems: int
    """Held-out problems for the accuracy before and after."""


FULL = Scale(steps=None, problems=500)
QUICK = Scale(steps=10, problems=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One problem's response and trace, before and after training."""

    question: str
    responses: tuple[str, str]
    traces: tuple[Trace, Trace]
    page: Path
    """Both side by side; the page of each is beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo measured."""

    before: Interval
    after: Interval
    gain: Interval
    change: Change | None
    """None if no problem went from wrong to right with an answer to trace in both responses."""


def run_demo(
    out: Path,
    *,
    scale: Scale = FULL,
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
    on_log: Callable[[LogLine], None] | None = None,
) -> DemoResult:
    """Run the demo in the folder `out`, or what is left of it.

    Args:
        out: Made if it does not exist.
        scale: FULL takes minutes on two cores, QUICK less than one.
        seed: Of training.
        on_stage: Called with a line at the start of each stage.
        on_log: Called with every logged step of training.

    Raises:
        InputError: `out` cannot be written, holds a demo of another scale or seed, or one that is still running.
    """
    with lock(out):
        claim(out, {"steps": scale.steps, "problems": scale.problems, "seed": seed})
        return _run(demo_run(out, scale, seed), out, scale, on_stage or (lambda text: None), on_log)


def _run(
    run: RunFile, out: Path, scale: Scale, stage: Callable[[str], None], on_log: Callable[[LogLine], None] | None
) -> DemoResult:
    task = make_task(run.task.name, run.task.options)
    problems = task.problems("test", scale.problems)
    stage(f"{run.model} before training, on {scale.problems} held-out problems")
    before = _responses(out / "before.json", run.model, problems)
    judged_before = judge(task, problems, before)
    stage(f"GRPO with {run.credit.name} credit: {run.grpo['max_steps']} steps")
    trained = train(run, on_log=on_log)
    stage(f"after training, on the same {scale.problems} problems")
    after = _responses(out / "after.json", str(trained), problems)
    judged_after = judge(task, problems, after)
    stage("one problem that went from wrong to right")
    correct = [[verdict.correct for verdict in judged] for judged in (judged_before, judged_after)]
    return DemoResult(
        before=accuracy(correct[0]),
        after=accuracy(correct[1]),
        gain=gain(*correct),
        change=_change(out, (run.model, str(trained)), problems, (before, after), (judged_before, judged_after)),
    )


def demo_run(out: Path, scale: Scale, seed: int) -> RunFile:
    """The demo's run file, with its output in `out`."""
    run = read_run_file(RUN_FILE)
    grpo = run.grpo if scale.steps is None else run.grpo | {"max_steps": scale.steps}
    return run.model_copy(update={"output_dir": out / "train", "grpo": grpo, "seed": seed})


def _responses(file: Path, model: str, problems: Sequence[Problem]) -> list[str]:
    """Greedy responses, kept in a file once they are there."""
    if file.exists():
        return list(json.loads(file.read_text(encoding="utf-8")))
    responses = respond(*load_model(model), problems, batch_size=256)
    write_atomically(file, json.dumps(responses))
    return responses


def _change(
    out: Path,
    models: tuple[str, str],
    problems: Sequence[Problem],
    responses: tuple[Sequence[str], Sequence[str]],
    verdicts: tuple[Sequence[Verdict], Sequence[Verdict]],
) -> Change | None:
    """The mended problem whose flow after training is most concentrated, traced before and after."""
    mended = [row for row, (b, a) in enumerate(zip(*verdicts, strict=True)) if a.correct and not b.correct]
    traced: list[dict[int, Trace]] = []
    for model, texts, judged in zip(models, responses, verdicts, strict=True):
        rollouts = [
            Rollout(
                id=problems[row].id,
                prompt=problems[row].prompt,
                response=texts[row],
                metadata={"is_correct": judged[row].correct},
            )
            for row in mended
        ]
        outcomes = Tracer(*load_model(model)).trace_batch(rollouts)
        traced.append(
            {row: outcome for row, outcome in zip(mended, outcomes, strict=True) if isinstance(outcome, Trace)}
        )
    both = sorted(traced[0].keys() & traced[1].keys())
    if not both:
        return None
    row = max(both, key=lambda row: hub_share(traced[1][row]))
    traces = (traced[0][row], traced[1][row])
    for name, trace in zip(("before", "after"), traces, strict=True):
        trace.save(out / f"{name}.safetensors")
        trace.to_html(out / f"{name}.html")
    return Change(
        question=problems[row].prompt[-1]["content"],
        responses=(responses[0][row], responses[1][row]),
        traces=traces,
        page=write_page(out / "before_and_after.html", comparison_page(compare(*traces))),
    )
