"""Numbers out of texts: alone, in mathematics, within a sentence."""

# ruff: noqa: RUF001 - look-alikes of ASCII signs and digits are what these tests are about

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.text.numbers import LONGEST, number, numerals, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"),
        (" 18. ", "18"),
        ("18.0", "18"),
        ("+18", "18"),
        ("-18", "-18"),
        ("−18", "-18"),
        (".5", "0.5"),
        ("$18", "18"),
        ("$ 18.50", "18.5"),
        ("-$18", "-18"),
        ("$-18", "-18"),
        ("€1,234.50", "1234.5"),
        ("1,234,567", "1234567"),
        ("1{,}234", "1234"),
        (r"\$1,000", "1000"),
        ("$18$", "18"),
        ("**18**", "18"),
        ("18 dollars", "18"),
        ("18 dollars per day.", "18"),
        ("18km/h", "18"),
        (r"18\text{ cm}", "18"),
        (r"18\,\mathrm{km}", "18"),
        ("50%", "50"),
        (r"50\%", "50"),
        ("50 %", "50"),
        ("1/2", "1/2"),
        ("-36 / 2", "-18"),
        (r"\frac{36}{2}", "18"),
        ("18 €", "18"),
        ("007", "7"),
    ],
)
def test_read(text, value):
    assert parse_number(text) == Fraction(value)


NOT_ONE_NUMBER = [
    *[
        "",
        " ",
        ".",
        "-",
        "$",
        "dollars",
        "eighteen",
        "x = 18",
        r"2\frac{1}{2}",
        "= 18",
        "about 18",
        "--18",
        "-$-18",
        "inf",
        "nan",
    ],
    *["18 or 19", "18 or so", "18, 19", "18 19", "18-19", "18 to 19", "18 and a half", "18 is not it"],
    *["18 thousand", "18k", "2 dozen", "18 million dollars", "18 (dollars)", "18 dollars in all this year"],
    *[
        "18!",
        "18²",
        "3^2",
        "3*6",
        "9+9",
        "3×6 = 18",
        "1 1/2",
        "1/0",
        "1/2/3",
        "1.5/2",
        r"\frac{1}{0}",
        r"\frac12",
    ],
    *["1e3", "1.8e1", "0x12", "1_000", "1,00", "12,34", "1,2345", "1.234,50", "1.2.3", "１８", "١٨", "½"],
    *[r"\frac{1}{0}", r"\frac12", "nan"],
]


@pytest.mark.parametrize("text", NOT_ONE_NUMBER)
def test_refused(text):
    assert parse_number(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9))
def test_spelling_does_not_change_the_number(number: Decimal):
    for text in (f"{number}", f"{number:,}", f"${number:,}", f"{number} euros", f"{number:.4f}"):
        assert parse_number(text) == Fraction(number)


@given(st.text(max_size=60) | st.text(alphabet="0123456789.,/-+ $%{}\\frac", max_size=60))
def test_any_text_is_read_as_a_rational_or_refused(text):
    assert isinstance(parse_number(text), Fraction | None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("18", 18), ("18 eggs", 18), ("3x", None), ("5 or 6", None), ("two", None), ("18 thousand", None), ("1/0", None)],
)
def test_a_number_has_no_variables(text, value):
    assert number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("value", "forms"),
    [
        ("1/2", [r"\frac{1}{2}", r"\dfrac{1}{2}", "1/2", "0.5", ".50", "1/2 cup"]),
        ("1000", ["1,000", "1000", "1,000.0", "$1,000", "1,000 dollars", r"1{,}000"]),
        ("-3", ["-3", "−3", "-3.0", "-6/2", "-$3", "-3 km"]),
        ("3/2", ["1 1/2", r"1\frac{1}{2}", r"1 \frac{1}{2}", "1.5", "3/2", r"\frac{3}{2}"]),
        ("-3/2", ["-1 1/2", r"-1\frac{1}{2}", "−1 1/2", "-1.5"]),
    ],
)
def test_one_number_however_it_is_written(value, forms):
    assert {number(form) for form in forms} == {Fraction(value)}
    for form in forms:
        assert [found.value for found in numerals(f"so x = {form}, as above")] == [Fraction(value)], form


_fractions = st.fractions(min_value=-1000, max_value=1000, max_denominator=50)


@given(st.lists(_fractions, max_size=6))
def test_the_numbers_of_a_sentence_stand_in_their_order(values):
    text = " then ".join(f"{value} eggs" for value in values)
    assert [found.value for found in numerals(text)] == values
    assert all(text[: found.stop].endswith(found.text) for found in numerals(text))


def test_a_minus_between_numbers_is_no_sign():
    assert [found.value for found in numerals("20-2, then (3)-4 or -5")] == [20, 2, 3, 4, -5]


@pytest.mark.parametrize("read", [number, parse_number])
def test_digits_without_end_are_no_number(read):
    assert read("9" * LONGEST) == 10**LONGEST - 1
    assert read("9" * 5000) is None
    assert list(numerals("9" * 5000)) == []
