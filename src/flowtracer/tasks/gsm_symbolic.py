r"""GSM-Symbolic: grade-school word problems out of templates, answered by one number.

The rule that `verify` holds to:

1. The answer is one number, as `flowtracer.text.numbers.parse_number` reads it. A currency sign before it and a unit
   after it are dropped, not checked: `$1,234.50`, `18 dollars`, `50%` (which is 50: the templates ask for percentages
   in per cent). `18 thousand`, `18 or so` and any second number are refused.
2. It equals the gold exactly, as a rational number: `18.0` and `36/2` are 18, `17.99` is not.

Of the 85 templates of reasoning-gym 0.1.25, those whose gold or statement is faulty are left out (`UNSOUND`).
Two problems are the same when they share template and numbers: another name in the same story tests nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from flowtracer.tasks.base import Problem, Reason, Verdict, datasets, final_answer, pose, take
from flowtracer.text.numbers import parse_number

# Template: its fault, and how often. Found by recomputing each template 1,500 times without truncation.
UNSOUND = {
    2: "46 % of 40 students are 18 (57 %)",
    3: "1656 minutes are 27 hours (2 %)",
    4: "78 muffins need 6 pans of 12 (17 %)",
    24: "a comet is seen at the age of -2 (5 %)",
    40: "28.999999999999996 cards are 28 (0.1 %)",
    46: "asks about a drink that is 0.6666666666666666 water (35 %)",
    49: "1105.9999999999998 pretzels are 1105 (53 %)",
    52: "asks about 0.3333333333333333 of an alphabet (33 %)",
    60: "27.5 minutes are 27 (25 %)",
    66: "asks about 18.083333333333332 hours (76 %)",
    75: "half of 5 tubes are 2 (47 %)",
    92: "rounds 2.50 down and 3.50 up (4 %)",
    95: "a month is 30 days, unsaid (52 %)",
    99: "88.16 - 44.16 is 43 (8 %)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GsmSymbolic:
    """Word problems of the sound templates of reasoning-gym's `gsm_symbolic`."""

    name: ClassVar[str] = "gsm_symbolic"

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        return take(self._draws(seed), split, n)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        answer = final_answer(response)
        if isinstance(answer, Reason):
            return Verdict(reason=answer)
        value = parse_number(answer)
        if value is None:
            return Verdict(reason=Reason.NOT_A_NUMBER)
        return Verdict(reason=Reason.CORRECT if value == Fraction(problem.facts["number"]) else Reason.WRONG_VALUE)

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        gold = Fraction(problem.gold)
        return [
            str(gold + 1),
            str(-gold or 1),
            str(gold + Fraction(1, 100)),
            f"{gold} or {gold + 1}",
            f"{gold} {gold}",
            f"{gold} thousand",
        ]

    def _draws(self, seed: int) -> Iterator[Problem | None]:
        for block in datasets("gsm_symbolic", seed=seed):
            for index, template in enumerate(block.task_indices):
                yield None if template in UNSOUND else _problem(template, block[index])


def _problem(template: int, item: dict[str, Any]) -> Problem:
    numbers = " ".join(re.findall(r"\d+(?:\.\d+)?", item["question"]))
    return pose(
        GsmSymbolic.name,
        key=f"{template}: {numbers}",
        question=item["question"],
        form="only the number",
        gold=item["answer"],
        facts={"number": item["answer"], "template": template},
    )
