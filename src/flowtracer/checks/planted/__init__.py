"""Is the picture true? Strategies of credit, and signals of attention, judged by steps whose need is known.

1. A task writes responses whose needed steps and distractors are known by construction (`cases.py`).
2. Strategies (`strategies.py`) and signals by band of layers (`bands.py`) give their tokens scores.
3. The AUROC of needed against distractor steps says how well they tell them apart (`judge.py`).

What a strategy must beat is `position`: on planted problems it is at 0.5 by construction; on Countdown, where the
solution's line is the last, it is at 1, and nothing is learned there but what dead ends look like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowtracer.checks.planted.bands import BandJudge
from flowtracer.checks.planted.cases import concluded, work_case
from flowtracer.checks.planted.judge import Found, Separation, summarise
from flowtracer.checks.planted.strategies import StrategyJudge, strategies_by_name
from flowtracer.credit import Credit
from flowtracer.errors import InputError
from flowtracer.model.logits import LogitReader
from flowtracer.tasks import Problem, WorkedTask

__all__ = ["Faithfulness", "Separation", "faithfulness", "strategies_by_name"]

_CHUNK = 32
"""Problems at a time: one batch to strategies whose rule is about the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """AUROC of strategies and signals."""

    problems: int
    worked: int
    """Of the problems, those with a worked response that has needed steps and distractors."""
    right: int
    """Of these, those that the model concluded rightly: the AUROCs are over these."""
    rows: Sequence[Separation]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rows = [{**asdict(row.key), **{k: v for k, v in asdict(row).items() if k != "key"}} for row in self.rows]
        return {"problems": self.problems, "worked": self.worked, "right": self.right, "rows": rows}


def faithfulness(
    model: Any,
    tokenizer: Any,
    task: WorkedTask,
    problems: Sequence[Problem],
    *,
    strategies: Mapping[str, Credit] | Sequence[str] | None = None,
    bands: bool = False,
    group: int = 8,
    seed: int = 0,
    on_problems: Callable[[int], None] | None = None,
) -> Faithfulness:
    """Judge strategies on the task's worked responses to the problems.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer, with a chat template.
        task: What writes the responses.
        problems: Its problems.
        strategies: Names of strategies, or strategies of one's own by name; None for all there are.
        bands: Also judge signals of attention by band of layers.
        group: Responses to a problem for strategies that compare them, the worked one among them.
        seed: Of the worked responses, of sampling and of the bootstrap.
        on_problems: Called with the number of problems that were done since it was last called.

    Raises:
        InputError: An unknown strategy, a group of one, or a model that concludes none of the problems rightly.
        CaptureError: Its attention or logits cannot be read.
    """
    if group < 2:
        raise InputError(f"expected a group of at least 2 responses, got {group}")
    chosen = strategies if isinstance(strategies, Mapping) else strategies_by_name(strategies)
    judged_by = StrategyJudge(model, tokenizer, task, chosen, group=group, seed=seed)
    band_judge = BandJudge(model) if bands else None
    reader = LogitReader(model)
    found: list[Found] = []
    worked = 0
    for start in range(0, len(problems), _CHUNK):
        few = problems[start : start + _CHUNK]
        made = [case for problem in few if (case := work_case(tokenizer, task, problem, seed=seed)) is not None]
        worked += len(made)
        cases = concluded(reader, made)
        by_strategies = judged_by.judge(cases) if cases else []
        for case, judged in zip(cases, by_strategies, strict=True):
            found.append(judged | (band_judge.judge(case) if band_judge is not None else {}))
        if on_problems is not None:
            on_problems(len(few))
    if not found:
        raise InputError(
            f"expected a model that concludes some of {worked} worked responses rightly, got none right; take an "
            "easier task, or a model that was trained on it"
        )
    return Faithfulness(problems=len(problems), worked=worked, right=len(found), rows=summarise(found, seed=seed))
