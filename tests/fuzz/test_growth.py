"""The work of reading a text grows no faster than the text."""

import sys

import pytest

from flowtracer.evaluation.equality import written_alike
from flowtracer.evaluation.grading import _boxes_in_a_row
from flowtracer.text.answer import Miss, boxes, first_box, locate_answer
from flowtracer.text.cue import cue_of
from flowtracer.text.numbers import numerals
from flowtracer.text.span import CharSpan
from flowtracer.text.steps import split_steps
from flowtracer.text.words import split_words
from hostile import PIECES

READERS = {
    "answer": locate_answer,
    "given answer": lambda text: locate_answer(text, "8"),
    "first box": first_box,
    "boxes": boxes,
    "boxes in a row": _boxes_in_a_row,
    "cue": lambda text: cue_of(text, CharSpan(start=len(text), stop=len(text))),
    "steps": split_steps,
    "words": split_words,
    "numbers": lambda text: list(numerals(text)),
}


def lines_run(function, text):
    """Lines of Python that a call runs: work that is counted, the same on every machine."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("reader", READERS)
def test_work_grows_as_the_text_does(reader):
    for piece in PIECES:
        short, long = (lines_run(READERS[reader], "A: " + piece * n + "}" * n) for n in (10, 80))
        assert long <= 10 * short + 80, piece  # the square would be 64 times


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        ("boxes", "\\boxed{" * 100_000 + "1" + "}" * 100_000),
        ("boxes in a row", "\\fbox{" * 100_000 + "1" + "}" * 100_000),
        ("boxes in a row", "\\boxed{1}" + " $," * 300_000 + "x\\boxed{2}"),
        ("boxes in a row", "\\boxed{1} and" + " $," * 300_000 + "x\\boxed{2}"),
    ],
    ids=["nested", "nested in a row", "marks between", "marks behind and"],
)
def test_a_megabyte_that_is_no_trap(reader, text):
    READERS[reader](text)  # what patterns do is not counted, but the square of a megabyte would not end


def test_a_long_answer_that_stands_nowhere_is_no_trap():
    assert locate_answer("共" * 1_000_000, "共" * 300_000 + "x") is Miss.ANSWER_NOT_IN_TEXT


@pytest.mark.parametrize(("opening", "closing"), [("(", ",2)"), (r"\{", r",2\}"), (r"\{", r"\}"), ("[", ",2)")])
def test_brackets_a_thousand_deep_are_compared(opening, closing):
    one, other = (opening * 500 + middle + closing * 500 for middle in ("1", "3"))
    assert written_alike(one, one)
    assert not written_alike(one, other)
    shallow, different = (opening * 9 + middle + closing * 9 for middle in ("1 , 2", "1,3"))
    assert written_alike(shallow, shallow.replace(" ", ""))
    assert not written_alike(shallow, different)
