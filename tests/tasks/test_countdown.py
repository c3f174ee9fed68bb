"""Countdown's rule, case by case, and against an independent evaluation of random expressions."""

# ruff: noqa: RUF001 - look-alikes of ASCII signs and digits are what these tests are about

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.tasks import Countdown, Reason
from flowtracer.tasks.countdown import judge

NUMBERS, TARGET = [3, 4, 5, 25], 60


@pytest.mark.parametrize(
    "text",
    [
        "3*4*5",
        " 3 * 4 * 5 ",
        "3*4*5.",
        "(3)*((4)*5)",
        "+3*4*5",
        "-3*-4*5",
        "--3*4*5",
        "3 × 4 · 5",
        "3 x 4 x 5",
        "$3 \\times 4 \\cdot 5$",
        r"\(3\times4\cdot5\)",
        r"\left(25 - 5\right) \times 3",
        "25÷5*4*3",
        r"25 \div 5 \times 4 \times 3",
        r"\frac{25}{5} * 3 * 4",
        r"\dfrac{3 \times 4}{\frac{5}{25}}",
        r"3 * \frac{4}{5} * 25",
        "(25 − 5) * 3",
        "25/(5/(3*4))",
        "3*4*5 = 60",
        "3*4*5=60.",
        "$3*4*5 = 60$",
    ],
)
def test_accepted(text):
    assert judge(text, NUMBERS, TARGET) is Reason.CORRECT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("60", "foreign_number"),
        ("30*2", "foreign_number"),
        ("345", "foreign_number"),
        ("3*4*5*1", "foreign_number"),
        ("3*4*5+3-3", "number_reused"),
        ("5*4*5-25-5*3", "number_reused"),
        ("3+4", "wrong_value"),
        ("25/4*3", "wrong_value"),
        ("4*(25/5)*3 - 5/25", "number_reused"),
        ("3/(5-5)", "division_by_zero"),
        (r"\frac{3}{4-4}", "division_by_zero"),
        ("3*4*5 = 61", "false_equation"),
        ("3*4*5 = ", "false_equation"),
        ("3*4*5 = 60 = 60", "false_equation"),
        ("3*4*5 = 4*15", "false_equation"),
        ("3+4 = 60", "wrong_value"),
        ("3+4 = 7", "false_equation"),
        ("60 = 3*4*5", "foreign_number"),
        ("3**4", "not_arithmetic"),
        ("3^4", "not_arithmetic"),
        ("9**9**9", "not_arithmetic"),
        ("3//4", "not_arithmetic"),
        ("25 % 4", "not_arithmetic"),
        ("3(4)(5)", "not_arithmetic"),
        ("3 4 5", "not_arithmetic"),
        ("2$5 * 4", "not_arithmetic"),
        ("3.0*4*5", "not_arithmetic"),
        ("3,4", "not_arithmetic"),
        ("3e1*4", "not_arithmetic"),
        ("0x3*4*5", "foreign_number"),
        ("٣*4*5", "not_arithmetic"),
        ("3*4*5²", "not_arithmetic"),
        ("３*4*5", "not_arithmetic"),
        ("three*4*5", "not_arithmetic"),
        ("3*4*5 or 12*5", "not_arithmetic"),
        ("3*4*5; 1", "not_arithmetic"),
        ("3*4*", "not_arithmetic"),
        ("*3*4*5", "not_arithmetic"),
        ("(3*4*5", "not_arithmetic"),
        ("3*4*5)", "not_arithmetic"),
        ("()", "not_arithmetic"),
        ("-", "not_arithmetic"),
        ("", "not_arithmetic"),
        (".", "not_arithmetic"),
        ("= 60", "not_arithmetic"),
        ("{3}*4*5", "not_arithmetic"),
        (r"\frac 3 4", "not_arithmetic"),
        (r"\frac{3}", "not_arithmetic"),
        (r"\frac{3}{4", "not_arithmetic"),
        (r"\fraction{3}{4}", "not_arithmetic"),
        (r"3 \timess 4", "not_arithmetic"),
        (r"\sqrt{25}", "not_arithmetic"),
        ("(" * 31 + "3*4*5" + ")" * 31, "not_arithmetic"),
    ],
)
def test_refused(text, reason):
    assert judge(text, NUMBERS, TARGET) == reason


def test_depth_of_thirty_is_read():
    assert judge("(" * 30 + "3*4*5" + ")" * 30, NUMBERS, TARGET) is Reason.CORRECT


def test_a_number_given_twice_may_be_used_twice():
    assert judge("5*5", [5, 5], 25) is Reason.CORRECT
    assert judge("5*5*5", [5, 5], 125) is Reason.NUMBER_REUSED


def test_arithmetic_is_exact():
    assert judge("3 * (1 / 3 * 7)", [3, 1, 7], 7) is Reason.NUMBER_REUSED
    assert judge("49 * (1 / 49)", [1, 49, 49], 1) is Reason.CORRECT  # 0.9999999999999999 in floats
    assert judge("10000000000000001 / 1", [10**16 + 1, 1], 10**16) is Reason.WRONG_VALUE  # equal in floats


# An expression is its text, its value (None where it divides by zero) and the numbers in it.
def _join(parts):
    (left, a, used), operator, (right, b, more) = parts
    if a is None or b is None or (operator == "/" and b == 0):
        value = None
    else:
        value = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[operator](b)
    spelled = {"*": " × ", "/": " ÷ ", "+": "+", "-": " − "}[operator]
    return f"({left}){spelled}({right})", value, used + more


LEAVES = st.integers(1, 100).map(lambda n: (str(n), Fraction(n), [n]))
EXPRESSIONS = st.recursive(
    LEAVES, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(_join), max_leaves=6
)


@given(EXPRESSIONS)
def test_the_value_is_the_exact_value(expression):
    text, value, used = expression
    if value is None:
        assert judge(text, used, 1) is Reason.DIVISION_BY_ZERO
        return
    assert judge(text, used, 10**15) is Reason.WRONG_VALUE
    if value.denominator == 1:
        assert judge(text, used, int(value)) is Reason.CORRECT
        assert judge(text, used, int(value) + 1) is Reason.WRONG_VALUE


@given(EXPRESSIONS, st.data())
def test_a_missing_number_is_refused(expression, data):
    text, value, used = expression
    assume(value is not None)
    missing = data.draw(st.sampled_from(used))
    given_numbers = list((Counter(used) - Counter([missing])).elements())
    expected = Reason.NUMBER_REUSED if missing in given_numbers else Reason.FOREIGN_NUMBER
    assert judge(text, given_numbers, int(value)) is expected


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 20)), max_size=5), st.integers(1, 20))
def test_precedence_is_that_of_arithmetic(tail, first):
    text = str(first) + "".join(f"{operator}{n}" for operator, n in tail)
    terms, factors = [], [Fraction(first)]
    sign = 1
    for operator, n in tail:
        if operator in "+-":
            terms.append(sign * _product(factors))
            sign, factors = (1 if operator == "+" else -1), [Fraction(n)]
        else:
            factors.append(Fraction(n) if operator == "*" else Fraction(1, n))
    value = sum(terms) + sign * _product(factors)
    assume(value.denominator == 1)
    assert judge(text, [first, *(n for _, n in tail)], int(value)) is Reason.CORRECT


def _product(factors: list[Fraction]) -> Fraction:
    value = Fraction(1)
    for factor in factors:
        value *= factor
    return value


@given(st.text(max_size=60) | st.text(alphabet="345 +-*/()=.{}\\frac×x$", max_size=60))
def test_no_text_crashes_and_none_reaches_an_impossible_target(text):
    assert judge(text, [3, 4, 5], 61) is not Reason.CORRECT  # 60 is the most that 3, 4 and 5 make


def test_problems_are_puzzles_within_their_options():
    task = Countdown(min_numbers=2, max_numbers=3, max_value=12, min_target=5, max_target=40)
    for problem in task.problems("train", 100):
        numbers, target = problem.facts["numbers"], problem.facts["target"]
        assert 2 <= len(numbers) <= 3
        assert all(1 <= number <= 12 for number in numbers)
        assert 5 <= target <= 40
        assert target not in numbers
        content = problem.prompt[0]["content"]
        assert ", ".join(map(str, numbers)) in content
        assert f"equals {target}." in content
        assert "at most once" in content


@pytest.mark.parametrize(
    "options",
    [{"min_numbers": 1}, {"min_numbers": 5}, {"max_value": 0}, {"min_target": 0}, {"min_target": 101}],
)
def test_impossible_options(options):
    with pytest.raises(InputError, match="expected"):
        Countdown(**options)
