"""What kind of thing a token is."""

# ruff: noqa: RUF001 - look-alikes are what this is about

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.report.figures.categories import CATEGORIES, category

EXAMPLES = {
    "punctuation, newlines": [".", ",", "\n", "  ", "", "⏎", "␣", "(", "):", "\\", "?!", "…", "。", "$", "🙂", "<s>"],
    "numbers": ["3", " 12", "3.5", "1,000", "-7", "$18", "50%", "½", "007", "１２", ".5"],
    "operators": ["+", " =", "*", "×", "<=", "->", "**", "\\frac", "\\times", "−", "√", "≠", "%"],
    "variables": ["x", " y", "X", "x1", "x_2", "n_{10}", "2x", "π", "\\alpha", "y'"],
    "words": ["apples", " So", "a", "A", "I", "12th", "don't", "Schlüssel", "数", "frac", "answer:", "km/h"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(text, name) for name, texts in EXAMPLES.items() for text in texts])
def test_examples(text, expected):
    assert category(text) == expected


@given(st.text(max_size=12))
def test_every_text_has_one(text):
    assert category(text) in CATEGORIES
    assert category(f" {text} ") == category(text)
