"""Responses graded by each rule."""

import pytest

from flowtracer.errors import InputError
from flowtracer.evaluation.base import Answered
from flowtracer.evaluation.grading import LONGEST, grade, read_gold


def graded(rule, gold, response, **rest):
    result = grade(Answered(rule=rule, gold=gold, response=response, **rest))
    return result.reason, result.answer, result.found


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (r"So \boxed{18}.", ("correct", "18", "boxed")),
        ("... she has 18.\n#### 18", ("correct", "18", "hashes")),
        ("A: $18", ("correct", "$18", "label")),
        ("The answer is 9 * 2 = 18 dollars.", ("correct", "9 * 2 = 18 dollars", "answer_is")),
        ("She makes 9 * 2 = $18.00 every day.", ("correct", "$18.00", "last_number")),
        ("She sells 18 eggs, that is 1,800 cents.", ("wrong_value", "1,800", "last_number")),
        ("It is 20-2", ("wrong_value", "2", "last_number")),
        (r"\boxed{17.99}", ("wrong_value", "17.99", "boxed")),
        ("I do not know.", ("no_answer", None, None)),
        ("", ("no_answer", None, None)),
    ],
)
def test_number(response, expected):
    assert graded("number", "18", response) == expected


def test_a_response_that_was_cut_off_has_no_last_word():
    assert graded("number", "18", "First 20 - 2 = 18", finished=False) == ("cut_off", None, None)
    assert graded("number", "18", r"\boxed{18} Now let me check", finished=False)[0] == "correct"


@pytest.mark.parametrize("rule", ["math", "number", "short"])
def test_a_pattern_finds_the_answer_and_nothing_else_does(rule):
    response = r"\boxed{17} or #### 16. Result: 15. Result: 18, not 19"
    assert graded(rule, "18", response, pattern=r"Result: (\d+)") == ("correct", "18", "pattern")
    assert graded(rule, "17", response, pattern=r"Result: (\d+)") == ("wrong_value", "18", "pattern")
    assert graded(rule, "19", response, pattern=r"Outcome: (\d+)") == ("no_answer", None, None)


@pytest.mark.parametrize(
    ("gold", "response", "reason"),
    [
        ("204", r"\boxed{204}", "correct"),
        ("204", r"\boxed{\boxed{204}}", "correct"),
        ("204", r"\boxed{3}, no: \boxed{204}", "correct"),
        ("204", r"\boxed{204}, no: \boxed{3}", "wrong_value"),
        ("204", r"so 204 minutes", "no_answer"),
        ("204", r"\boxed{204", "no_answer"),
        (r"\frac{1}{2}", r"\[\boxed{\dfrac{1}{2}}\]", "correct"),
        ("3, 5", r"$\boxed{3}$ and $\boxed{5}$", "correct"),
        ("3, 5", r"\boxed{5}, \boxed{3}", "correct"),
        ("3, 5", r"We get \boxed{3} first. Then we see that \boxed{5}", "wrong_value"),
        ("3", r"\boxed{3} and \boxed{5}", "wrong_value"),
        ("(1,2)", "The answer is $(1, 2)$.", "correct"),
        ("5", rf"\boxed{{{'9' * LONGEST}9}}", "too_long"),
    ],
)
def test_math(gold, response, reason):
    assert graded("math", gold, response)[0] == reason


PLANETS = {"A": "Mars", "B": "The moon", "C": "50"}


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (r"\boxed{B}", True),
        (r"\boxed{\text{B}}", True),
        (r"\boxed{(b)}", True),
        (r"\boxed{B. The moon}", True),
        (r"\boxed{\text{B) The moon}}", True),
        ("The answer is (B).", True),
        ("Answer: Option B", True),
        (r"\boxed{the moon}", True),
        (r"\boxed{A}", False),
        (r"\boxed{Mars}", False),
        (r"\boxed{A moon, B}", False),
        (r"\boxed{D}", False),
        ("B is what I would say", False),
    ],
)
def test_choice(response, right):
    assert (graded("choice", "B", response, options=PLANETS)[0] == "correct") == right


@pytest.mark.parametrize(("answer", "letter"), [("3", "A"), ("-3", "B"), ("3 + 4", "C"), ("3 * 4", "D")])
def test_choices_that_differ_in_a_sign_are_two(answer, letter):
    options = {"A": "3", "B": "-3", "C": "3 + 4", "D": "3 * 4"}
    for gold in options:
        reason = graded("choice", gold, rf"\boxed{{{answer}}}", options=options)[0]
        assert (reason == "correct") == (gold == letter)


@pytest.mark.parametrize(
    ("gold", "response", "right"),
    [
        ("B", r"\boxed{B}", True),
        ("B", r"\boxed{B: Paris}", True),
        ("B", r"\boxed{A}", False),
        ("the French Revolution", r"\boxed{\text{French revolution}}", True),
        ("French Revolution", r"\boxed{American Revolution}", False),
        ("0.5", r"\boxed{\frac12}", True),
        ("COVID-19", r"\boxed{Covid 19}", True),
        ("-3", r"\boxed{3}", False),
        ("x-1", r"\boxed{x+1}", False),
        ("1/2", r"\boxed{1 2}", False),
    ],
)
def test_short(gold, response, right):
    assert (graded("short", gold, response)[0] == "correct") == right


def test_an_unknown_rule():
    with pytest.raises(InputError, match="out of math, number, choice, short, got 'exact'"):
        graded("exact", "1", "1")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("She has 3 + 4 = 7.\n#### 7", "7"),
        (r"Then $x = 2$, so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (" 27 ", "27"),
        ("$f(x)=x$,$f(x)=2-x$", "$f(x)=x$,$f(x)=2-x$"),
    ],
)
def test_gold_answers_are_read_off_their_working(text, gold):
    assert read_gold(text) == gold
