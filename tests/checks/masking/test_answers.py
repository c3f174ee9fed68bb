r"""How the causal check asks, where an answer ends, and which answers are the same."""

# ruff: noqa: RUF001 - look-alikes of ASCII signs are what these tests are about

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.checks.masking.answers import Asking, same_answer
from flowtracer.evaluation.base import Answered
from flowtracer.evaluation.grading import LONGEST, grade
from flowtracer.text.answer import locate_answer


def asking_after(response):
    return Asking.after(locate_answer(response))


@pytest.mark.parametrize(
    ("answer", "numeric"),
    [
        *[(text, True) for text in ("18", "-3", "1,000", "$18.50", "18 dollars", "18 dollars every single day", "50%")],
        *[(text, True) for text in (r"\frac{1}{2}", "1/2", "½", "1 1/2", "about 18", "9 * 2 = 18 dollars")],
        *[(text, False) for text in ("3 * 4", "20-2", "2x", r"\sqrt{2}", "x^2", "3, 5", "two", "B", "9" * 5000)],
    ],
)
def test_whether_an_answer_is_a_number(answer, numeric):
    assert asking_after(f"<answer>{answer}</answer>").numeric is numeric


@pytest.mark.parametrize(
    ("response", "generated", "answer"),
    [
        (r"\boxed{18}", r"18}. So it", "18"),
        (r"\boxed{18}", r" 1,800.50 dollars", "3601/2"),
        (r"\boxed{1/2}", r"\frac{1}{2}}", "1/2"),
        (r"\boxed{1/2}", r"\dfrac{3}{4}, that is", "3/4"),
        (r"\boxed{1/2}", "1 1/2 cups", "3/2"),
        ("The answer is 7.", " −7 degrees", "-7"),
        ("The answer is 7.", " seven, I think\n", "seven, I think"),
        (r"\boxed{x^{2}}", r"x^{3}} and", "x^{3}"),
        (r"\boxed{\{1, 2\}}", r"\{1\}}", r"\{1\}"),
        ("<answer>3*4</answer>", "3*5</answer> done", "3*5"),
    ],
)
def test_an_answer_ends_where_it_is_whole_and_not_before(response, generated, answer):
    asking = asking_after(response)
    stop = next(n for n in range(len(generated) + 1) if asking.complete(generated[:n]))
    assert asking.read(generated[:stop]) == answer
    assert asking.read(generated) == answer, "what follows changes nothing"


@given(st.fractions(min_value=-500, max_value=500, max_denominator=30), st.sampled_from(["}", " eggs", ". So", "\n"]))
def test_numbers_are_read_whole(value, behind):
    sign = "-" if value < 0 else ""
    for text in (str(value), rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"):
        asking = asking_after(r"\boxed{1}")
        stops = [n for n in range(len(text + behind) + 1) if asking.complete((text + behind)[:n])]
        assert stops
        assert stops[0] > len(text)
        assert asking.read((text + behind)[: stops[0]]) == str(value)


SAME = [
    *[
        ("18.0", "$18"),
        ("18 eggs", "18"),
        (r"\frac{1}{2}", "1/2"),
        (r"\frac12", "0.5"),
        ("1,000", "1000"),
        ("−3", "-3"),
    ],
    *[
        ("3 * 4", "3*4"),
        ("B", "(b)"),
        ("Paris", "paris"),
        ("(1,2)", "(1, 2)"),
        ("3, 5", "5, 3"),
        (r"\text{yes}", "yes"),
    ],
]
OTHER = [("18", "180"), (r"\frac{1}{2}", "1"), ("3 * 4", "3 + 4"), ("B", "C"), ("(1,2)", "(2,1)"), ("-3", "3")]


@pytest.mark.parametrize(("pair", "alike"), [*((pair, True) for pair in SAME), *((pair, False) for pair in OTHER)])
def test_answers_are_the_same_as_graded(pair, alike):
    numeric = asking_after(f"<answer>{pair[0]}</answer>").numeric
    assert same_answer(*pair, numeric=numeric) is alike
    assert same_answer(*reversed(pair), numeric=numeric) is alike
    rule = "number" if numeric else "choice" if len(pair[0]) == 1 else "math"
    assert grade(Answered(rule=rule, gold=pair[0], response=f"<answer>{pair[1]}</answer>")).correct is alike


def test_long_answers_are_compared_as_text():
    assert same_answer("9" * LONGEST + " 9", "9" * LONGEST + "  9", numeric=True)
    assert not same_answer("9" * LONGEST + "9", "9" * LONGEST, numeric=True)
