r"""Countdown: reach a target with given numbers and the four operations.

The rule, which the prompt states and `verify` holds to:

1. The answer is an expression over integers with `+ - * /`, leading signs and parentheses. These spellings
   are read too: `× · ∙ ÷ − –`, the letter x, `\times \cdot \div \frac{a}{b} \left( \right)`, `$` around it.
   Powers, decimals, implicit products such as `2(3)`, names and digits of other scripts are not arithmetic.
2. Each given number may be used at most once; none has to be used; no other number may be used.
3. The expression's exact rational value equals the target.
4. `= t` may follow, once, if t is the target as a plain number: `3 * 4 = 12`. Any other claim is a false
   equation, even after a right expression: the answer contradicts itself.

A target that is one of the given numbers is no puzzle, so such draws are dropped.

The grammar, read by recursive descent to a limited depth:

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = ("+" | "-")* (integer | "(" sum ")" | "\frac" "{" sum "}" "{" sum "}")
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import ClassVar

from flowtracer.errors import InputError
from flowtracer.tasks.base import Problem, Reason, Verdict, datasets, final_answer, pose, take
from flowtracer.tasks.countdown_search import search, solutions
from flowtracer.tasks.worked import Worked

_SPELLINGS = str.maketrans("×·∙x÷−–$", "****/-- ")  # noqa: RUF001
_LATEX = (
    (re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:! ()\[\]]"), " "),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\[dt]frac(?![a-zA-Z])"), r"\\frac"),
)
_TOKEN = re.compile(r"\s*([0-9]+|\\frac|[-+*/(){}])")

DEAD_ENDS = 6  # at most, in a worked response

# Far deeper than any solution, and far from the interpreter's own recursion limit.
_MAX_DEPTH = 30


class _NotArithmeticError(Exception):
    """The text is not in the grammar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Countdown:
    """Reach a target between `min_target` and `max_target` with `min_numbers` to `max_numbers` numbers."""

    name: ClassVar[str] = "countdown"

    min_numbers: int = 3
    max_numbers: int = 4
    max_value: int = 100  # largest given number
    min_target: int = 10
    max_target: int = 100
    brief: bool = False  # the statement in one short line without the rules, for a model that was trained on it

    def __post_init__(self) -> None:
        if not 2 <= self.min_numbers <= self.max_numbers:
            raise InputError(f"expected 2 <= min_numbers <= max_numbers, got {self.min_numbers}, {self.max_numbers}")
        if not 1 <= self.min_target <= self.max_target:
            raise InputError(f"expected 1 <= min_target <= max_target, got {self.min_target}, {self.max_target}")
        if self.max_value < 1:
            raise InputError(f"expected max_value >= 1, got {self.max_value}")

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        """The first `n` distinct problems of a split in the stream of `seed`."""
        return take(self._draws(seed), split, n)

    def verify(self, problem: Problem, response: str) -> Verdict:
        """Judge a whole response: its final answer is looked up first."""
        answer = final_answer(response)
        if isinstance(answer, Reason):
            return Verdict(reason=answer)
        return Verdict(reason=judge(answer, problem.facts["numbers"], problem.facts["target"]))

    def wrong_answers(self, problem: Problem) -> list[str]:
        """Near misses that `verify` must refuse, for `validate`."""
        numbers, target = problem.facts["numbers"], problem.facts["target"]
        return [
            str(target),
            f"{problem.gold} = {target + 1}",
            f"({problem.gold}) + {numbers[0]} - {numbers[0]}",
            f"{problem.gold} + {sum(numbers) + target}",
            " + ".join(map(str, [*numbers, target])),
            f"({problem.gold}) ** 1",
        ]

    def work(self, problem: Problem, *, seed: int = 0) -> Worked:
        """A search with up to `DEAD_ENDS` dead ends before a solution; see `flowtracer.tasks.countdown_search`.

        Raises:
            InputError: The numbers do not reach the target from left to right, over whole numbers in its range.
        """
        rng = Random(f"{problem.id} {seed}")  # noqa: S311 - not for security
        numbers, target = problem.facts["numbers"], problem.facts["target"]
        found = solutions(numbers, target)
        if not found:
            raise InputError(f"{problem.id}: expected numbers that reach {target} from left to right, got {numbers}")
        return search(numbers, target, rng.choice(found), rng, dead_ends=DEAD_ENDS)

    def pose(self, numbers: list[int], target: int, gold: str) -> Problem | None:
        """A problem with our own statement, as reasoning-gym's asks to use all the numbers, or not, at random.

        None where the target is one of the numbers.
        """
        if target in numbers:
            return None
        given = ", ".join(map(str, numbers))
        rules = (
            f"Using the numbers {given}, write an arithmetic expression that equals {target}. "
            "Use only +, -, *, / and parentheses. Each given number may be used at most once, "
            "and no other number may be used."
        )
        return pose(
            self.name,
            key=f"{sorted(numbers)} {target}",
            question=f"Make {target} from {given}." if self.brief else rules,
            form=None if self.brief else "only the expression",
            gold=gold,
            facts={"numbers": numbers, "target": target},
        )

    def _draws(self, seed: int) -> Iterator[Problem | None]:
        for block in datasets(
            "countdown",
            seed=seed,
            min_numbers=self.min_numbers,
            max_numbers=self.max_numbers,
            max_value=self.max_value,
            min_target=self.min_target,
            max_target=self.max_target,
        ):
            for index in range(len(block)):
                try:
                    item = block[index]
                except ValueError:  # a hundred tries of reasoning-gym met no target in the range
                    yield None
                else:
                    facts = item["metadata"]
                    yield self.pose(facts["numbers"], facts["target"], item["answer"])


def judge(text: str, numbers: list[int], target: int) -> Reason:
    """Judge an answer by the rule above."""
    expression, equals, claim = _normalise(text).partition("=")
    try:
        value, used = _Parser(expression).parse()
    except _NotArithmeticError:
        return Reason.NOT_ARITHMETIC
    except ZeroDivisionError:
        return Reason.DIVISION_BY_ZERO
    if not set(used) <= set(numbers):
        return Reason.FOREIGN_NUMBER
    if Counter(used) - Counter(numbers):
        return Reason.NUMBER_REUSED
    if equals and claim.strip() != str(target):
        return Reason.FALSE_EQUATION
    return Reason.CORRECT if value == target else Reason.WRONG_VALUE


def _normalise(text: str) -> str:
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text.translate(_SPELLINGS).strip().removesuffix(".")


class _Parser:
    """Recursive descent over the grammar above; keeps every integer that it meets."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.position = 0
        self.used: list[int] = []

    def parse(self) -> tuple[Fraction, list[int]]:
        value = self._sum(0)
        if self.position < len(self.tokens):
            raise _NotArithmeticError
        return value, self.used

    def _sum(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise _NotArithmeticError
        value = self._product(depth)
        while operator := self._accept("+", "-"):
            term = self._product(depth)
            value = value + term if operator == "+" else value - term
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while operator := self._accept("*", "/"):
            factor = self._factor(depth)
            value = value * factor if operator == "*" else value / factor
        return value

    def _factor(self, depth: int) -> Fraction:
        sign = 1
        while operator := self._accept("+", "-"):
            sign = -sign if operator == "-" else sign
        if self._accept("("):
            return sign * self._closed(")", depth)
        if self._accept(r"\frac"):
            return sign * self._braced(depth) / self._braced(depth)
        return sign * self._integer()

    def _braced(self, depth: int) -> Fraction:
        if not self._accept("{"):
            raise _NotArithmeticError
        return self._closed("}", depth)

    def _closed(self, bracket: str, depth: int) -> Fraction:
        value = self._sum(depth + 1)
        if not self._accept(bracket):
            raise _NotArithmeticError
        return value

    def _integer(self) -> Fraction:
        if self.position == len(self.tokens) or not self.tokens[self.position].isdigit():
            raise _NotArithmeticError
        self.used.append(int(self.tokens[self.position]))
        self.position += 1
        return Fraction(self.used[-1])

    def _accept(self, *symbols: str) -> str:
        """The next token if it is one of `symbols`, consumed; else the empty string."""
        if self.position == len(self.tokens) or self.tokens[self.position] not in symbols:
            return ""
        self.position += 1
        return self.tokens[self.position - 1]


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _NotArithmeticError
        tokens.append(match[1])
        position = match.end()
    return tokens
