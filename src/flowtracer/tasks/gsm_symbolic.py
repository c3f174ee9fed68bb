r"""GSM-Symbolic: grade-school word problems out of templates, answered by one number.

The rule that `verify` holds to:

1. The answer is one number: digits with an optional sign, thousands separators in their right places and
   decimals, or a fraction `a/b` or `\frac{a}{b}`. No exponents, no digits of other scripts, no arithmetic.
2. A currency sign before it and a unit after it are dropped, not checked: `$1,234.50`, `18 dollars`, `50%`
   (which is 50: the templates ask for percentages in per cent). A unit is at most three words, and none that
   changes the number or hedges: `18 thousand` and `18 or so` are refused, and so is any second number.
3. It equals the gold exactly, as a rational number: `18.0` and `36/2` are 18, `17.99` is not.

Of the 85 templates of reasoning-gym 0.1.25, those whose gold or statement is faulty are left out (`UNSOUND`).
Two problems are the same when they share template and numbers: another name in the same story tests nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from flowtracer.tasks.base import Problem, Reason, Verdict, datasets, final_answer, pose, take

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

_LATEX = (
    (re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf)\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\[,;:! ]"), " "),
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£]?\s*(?P<inner>[-+]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.(?P<decimals>[0-9]*)|\s*/\s*(?P<below>[0-9]+))?"
    r"\s*(?P<unit>.*)",
    re.DOTALL,
)
# Words that are no unit: they join, hedge, deny or scale.
_NOT_A_UNIT = frozenset(
    {
        *("or", "and", "to", "not", "than", "plus", "minus", "times", "about", "approximately", "so", "half"),
        *("k", "hundred", "hundreds", "thousand", "thousands", "million", "millions", "billion", "billions"),
        *("trillion", "trillions", "dozen", "dozens", "score"),
    }
)


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


def parse_number(text: str) -> Fraction | None:
    """The one number that an answer gives, by the rule above, or None."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = text.replace("\N{MINUS SIGN}", "-").strip().strip("*`").rstrip("$").strip()
    match = _NUMBER.fullmatch(text)
    if match is None or not _is_unit(match["unit"]) or (match["sign"] and match["inner"]):
        return None
    whole, decimals, below = match["whole"], match["decimals"], match["below"]
    if not (whole or decimals) or (below and int(below) == 0):
        return None
    value = Fraction(f"{(whole or '0').replace(',', '')}.{decimals or 0}") / int(below or 1)
    return -value if "-" in (match["sign"], match["inner"]) else value


def _is_unit(text: str) -> bool:
    """At most three words, a per cent sign or a currency sign: nothing that could change the number."""
    words = re.split(r"[\s/-]+", text.lower().rstrip(".").strip())
    return len(words) <= 3 and all(
        word in {"", "%", "$", "€", "£"} or (word.isalpha() and word not in _NOT_A_UNIT) for word in words
    )


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
