"""Answers that responses state in their own way."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.text.answer import Answer, Miss, check_pattern, locate_answer

RESULT = r"Result:(.*)"


def said(text, pattern, answer=None):
    found = locate_answer(text, answer, pattern)
    return found if isinstance(found, Miss) else (found.text, found.rule)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("so 3.\nResult: 18\n", RESULT, ("18", "pattern")),
        ("Result: 1\nResult: 18 \nResult:  \nbye", RESULT, ("18", "pattern")),
        (r"\boxed{3} Result: 18", RESULT, ("18", "pattern")),
        (r"\boxed{3}", RESULT, Miss.NO_ANSWER),
        ("Result: ", RESULT, Miss.EMPTY_ANSWER),
        (" \n", RESULT, Miss.EMPTY_RESPONSE),
        ("a=1 b", r"a=(\d)|b=(\d)", ("1", "pattern")),
        ("b=2", r"a=(\d)|b=(\d)", Miss.NO_ANSWER),
        ("<ans>x\ny</ans>", r"(?s)<ans>(.*?)</ans>", ("x\ny", "pattern")),
        ("the end: 7", lambda text: (9, 10), ("7", "pattern")),
        ("the end: 7", lambda text: None, Miss.NO_ANSWER),
        ("the end: 7", lambda text: (3, 4), Miss.EMPTY_ANSWER),
    ],
)
def test_the_last_match_that_holds_something(text, pattern, expected):
    assert said(text, pattern) == expected


def test_a_given_answer_is_looked_for_within_the_match():
    found = locate_answer("8 and 8.\nResult: 8 eggs\nand 8 again", "8", RESULT)
    assert (found.span.start, found.rule) == (17, "given")


@given(st.text(), st.text(alphabet="0123456789-/ x", min_size=1).filter(str.strip), st.text())
def test_the_span_holds_the_text(before, answer, after):
    text = f"{before}\x00{answer}\x01{after}"
    found = locate_answer(text, pattern=r"(?s)\x00([^\x00\x01]*)\x01")
    assert isinstance(found, Answer)
    assert text[found.span.start : found.span.stop] == found.text == found.text.strip()


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_it_finds_what_pythons_own_expressions_find(text):
    pattern = r"(\w+)[.!]"
    own = [match.group(1) for match in re.finditer(pattern, text)]
    found = locate_answer(text, pattern=pattern) if text.strip() else None
    if own and text.strip():
        assert found.text == own[-1].strip()


@pytest.mark.parametrize("pattern", [r"((a|aa)+)$", r"(.*a){25}b"])
def test_a_pattern_that_would_never_end_is_a_miss(pattern):
    assert locate_answer("a" * 5000 + "!", pattern=pattern) is Miss.SLOW_PATTERN


def test_only_the_end_of_a_long_text_is_searched():
    assert locate_answer("Result: 1\n" + "x" * 100_000, pattern=RESULT) is Miss.NO_ANSWER
    assert locate_answer("x" * 1_000_000 + "\nResult: 1\n" + "x" * 90_000, pattern=RESULT).text == "1"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("Result: (", "as a regular expression, got 'Result: \\('"),
        ("Result: .*", "with a group that is the answer, such as 'Result: \\(.\\+\\)', got 'Result: .*'"),
        (3, "as a regular expression or a function, got 3"),
    ],
)
def test_a_pattern_that_is_none_is_refused_at_once(pattern, message):
    with pytest.raises(InputError, match=message):
        check_pattern(pattern)


@pytest.mark.parametrize("place", [(1, 99), (5, 3), (-1, 2), 7, "x", ("a", "b"), (1, 2, 3)])
def test_a_function_that_gives_no_place(place):
    with pytest.raises(InputError, match="a place within the 4 characters"):
        locate_answer("text", pattern=lambda text: place)
