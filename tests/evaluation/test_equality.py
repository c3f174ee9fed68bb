"""Answers that are the same, and answers that only look so: a table, and laws over random numbers and lists."""

# ruff: noqa: RUF001 - the symbols of mathematics are what is tested

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtracer.evaluation.equality import plain, same

SAME = [
    # numbers
    ("18", "18.0"),
    ("18", r"\$18"),
    ("18", "$18$"),
    ("18", "18 dollars"),
    ("18", "018"),
    ("-3", "−3"),
    ("1,000", "1000"),
    ("1000", "1{,}000"),
    ("1000", r"1\,000"),
    ("1000", "1 000"),
    ("1000000", "1 000 000"),
    (r"\frac{1}{3}", "1/3"),
    (r"\dfrac12", "0.5"),
    ("0.5", "½"),
    ("2.5", r"2 \frac{1}{2}"),
    ("2.5", "2½"),
    ("1.5", "1 1/2"),
    ("-2.5", r"-2\frac{1}{2}"),
    (r"\frac13", r"0.\overline{3}"),
    (r"\frac{1}{6}", r"0.1\overline{6}"),
    (r"\frac13", "0.333333"),
    ("3500", "3.5e3"),
    ("0.0035", r"3.5\times10^{-3}"),
    ("204", r"\boxed{204}"),
    ("204", r"\textbf{204}."),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    ("5", "4 + 1 = 5"),
    # units and signs around them
    (r"15\mbox{ cm}^2", "15"),
    ("15", r"15\,\text{cm}"),
    ("15", r"15\quad\text{cm}"),
    ("5", r"5\text{ cm}"),
    ("166", r"166 cm^2"),
    ("90", r"90^\circ"),
    ("90", "90°"),
    (r"\frac{41}{12}", r"\frac{41}{12} \text{ km}"),
    (r"50\%", "50"),
    ("50", "50%"),
    ("0.5", r"50\%"),
    # expressions
    (r"\sqrt{12}", r"2\sqrt3"),
    (r"\sqrt{2}", "√2"),
    (r"\frac{\sqrt3}{2}", "√3/2"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"2\pi", "2π"),
    ("x^2", "x²"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"2^{k-1}", r"2^{k}/2"),
    (r"\left\lfloor\log _{2} n\right\rfloor+1", r"\lfloor \log_2 n\rfloor + 1"),
    ("5", "x=5"),
    ("f(x)=2x", "2x"),
    (r"\frac{100!}{2^{50}}", r"100! \cdot 2^{-50}"),
    (r"m_{\max }=n^{2}-n-1", "n^2-n-1"),
    (r"\frac{a b}{2}", "ab/2"),
    # lists, sets, tuples, intervals
    ("1,-2", "x = 1 or x = -2"),
    ("1000, 2000", "1,000 and 2,000"),
    ("(100,200),(300,400)", "(100, 200) and (300, 400)"),
    ("(3,4)", "x=3, y=4"),
    ("(-2,1)", "-2<x<1"),
    ("1,3,5", r"\{5, 3, 1\}"),
    ("1,3,5", "{5,3,1}"),
    ("$69$,$84$", "84 and 69"),
    ("5, 6", r"x=5 \text{ or } x=6"),
    (r"\pm 2021", "-2021, 2021"),
    (r"3 \pm \sqrt{2}", r"3-\sqrt2, 3+\sqrt2"),
    (r"\{1\}", "1"),
    ("f(x)=x$,$f(x)=2-x", "f(x)=2-x and f(x)=x"),
    ("(6,5)", r"\left(6, 5\right)"),
    ("(312,123,231)", "(312, 123, 231)"),
    ("(1,8),(2,7)", "(2,7), (1,8)"),
    (r"(45^{\circ}, 60^{\circ}),(135^{\circ}, 60^{\circ})", "(135,60),(45,60)"),
    (r"[-1,-\frac12]", "[-1, -0.5]"),
    (r"[2,\infty)", "[2, ∞)"),
    (r"[2,\infty)", r"x \ge 2"),
    (r"k \geqslant 2", "k ≥ 2"),
    (r"(-\infty,0)\cup\{1\}", r"\{1\} ∪ (-inf, 0)"),
    (r"(-\infty,0)\cup\{1\}", "(-inf, 0) U {1}"),
    (r"x \in [1,2]", "[1,2]"),
    # words and the rest
    (r"\text{Evelyn}", "Evelyn"),
    ("Tuesday", r"\text{tuesday}"),
    ("12:00", "12:00"),
    (r"4:30 \text{ p.m.}", "4:30 p.m."),
    ("2516_8", "2516_{8}"),
    (r"\frac{3}{2}", "3:2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\ 2\end{pmatrix}"),
]

OTHER = [
    ("18", ""),
    ("18", "17.99"),
    ("18", "-18"),
    ("18", "eighteen or so"),
    ("3", "3x"),
    ("2", "2n"),
    ("3", "3, 5"),
    ("100200", "100, 200"),
    ("11/2", "1 1/2"),
    ("21/2", r"2\frac{1}{2}"),
    ("35", "3 5"),
    ("0", r"0.\overline{3}"),
    ("0.33", r"\frac13"),
    ("2^{100}", "2^{100}+1"),
    ("11111111111111111111", "11111111111111111112"),
    # math-verify holds all of these to six decimals
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"\frac{2^{2005}+1}{3\cdot2^{2006}}", r"\frac{1}{3\cdot2^{2006}}"),
    ("10^{-7}", "0"),
    # a part of a list, or more than it
    ("3, 5", "3"),
    ("1331 and 1728", "1728"),
    (r"\pm 2021", "2021"),
    ("1,3,5", "1,3"),
    ("1,3", "1,3,5"),
    ("n=2,3,4", "n=1,2,3"),
    # order and brackets
    ("(6,5)", "(5,6)"),
    ("(1,2)", "[1,2]"),
    ("(0,1)", "(0,1.5)"),
    ("(1,2)", "1,2"),
    (r"(-\sqrt{11},-2)\cup (\sqrt{11},9)", r"(-\sqrt{11},-2)\cup (\sqrt{11},10)"),
    (r"k \geqslant 2", "k > 2"),
    ("(3,4)", "x=4, y=3"),
    ("(3,4)", "x=3, x=4"),
    ("(3,4)", "3, 4"),
    # functions, equations, words
    ("x=3", "y=4"),
    ("m_1=3", "m_2=3"),
    ("f(x)=2x", "f(x)=3x"),
    ("2x", "2y"),
    ("3x-y+13=0", "3x+4y+14=0"),
    (r"1-\frac{1}{e}", r"1+\frac1e"),
    ("12:00", "1:00"),
    ("2516_8", "2516_9"),
    ("listen", "silent"),
    ("no solution", "on solution"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
]


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    """math-verify warns once that its own limit is off."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same(gold, answer):
    assert same(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), OTHER)
def test_not_the_same(gold, answer):
    assert not same(gold, answer)


def test_a_tolerance_is_for_numbers():
    assert same("4.2", "4.25", tolerance=0.1)
    assert not same("4.2", "4.35", tolerance=0.1)
    assert not same("x", "y", tolerance=0.1)


_numbers = st.fractions(min_value=-1000, max_value=1000, max_denominator=40)


@settings(max_examples=40)
@given(_numbers, _numbers)
def test_numbers_are_the_same_if_their_values_are(one, other):
    forms = [f"{one}", rf"\frac{{{one.numerator}}}{{{one.denominator}}}", rf"${one}$", f"x = {one}"]
    assert all(same(str(one), form) for form in forms)
    assert same(str(one), str(other)) == (one == other)


@settings(max_examples=40)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_lists_are_sets_and_tuples_are_not(values, random):
    shuffled = random.sample(values, len(values))
    written = [", ".join(map(str, order)) for order in (values, shuffled)]
    assert same(written[0], rf"\{{{written[1]}\}}")
    assert same(f"({written[0]})", f"({written[1]})") == (values == shuffled)
    assert not same(written[0], ", ".join(map(str, values[1:])))
    assert not same(", ".join(map(str, values[1:])), written[0])


PIECES = [*r"\{}[]()$%^_,;. 0123x½√±∪π²", r"\text{", r"\frac{", r"\boxed{", r"\overline{"]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_whatever_is_written_is_the_same_as_itself(text):
    assert same(text, text) == bool(plain(text))
