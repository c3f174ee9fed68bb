"""Text as words, numbers and operators, and tokens as what they spell of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.text.span import CharSpan, Span
from flowtracer.text.words import group_tokens, split_words


def named(text, kind=None):
    return [text[word.span.start : word.span.stop] for word in split_words(text) if kind is None or word.kind == kind]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("16 - 3 = 13", ["16", "3", "13"]),
        ("16-3=13", ["16", "3", "13"]),
        ("it is -5 or (-3)", ["-5", "-3"]),
        ("$1,200.50 and 30% of .25", ["$1,200.50", "30%", ".25"]),
        ("the 2nd of 3. 4", ["2nd", "3", "4"]),
        ("a 10-gallon jar, 3x", ["10", "3"]),
        ("1. one\n2) two", []),
    ],
)
def test_numbers_keep_their_sign_thousands_and_decimals(text, numbers):
    assert named(text, "number") == numbers


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("2 x 3 \\times 4 * 5 = 120", ["x", "\\times", "*", "="]),
        ("**bold** and - a dash", ["-"]),
        ("- an item\n* another", []),
        ("well-known, x >= 3", [">="]),
        ("---\n### Title", []),
    ],
)
def test_operators_are_no_marks_of_markdown(text, operators):
    assert named(text, "operator") == operators


def test_words():
    assert named("Janet's ducks, the farmers' well-known", "word") == [
        "Janet's",
        "ducks",
        "the",
        "farmers'",
        "well-known",
    ]
    assert named("<|im_start|>user\nHi</think>") == ["Hi"]


def grouped(*pieces):
    """Groups of tokens as (text, kind), the tokens being all there is of a step."""
    text = "".join(pieces)
    offsets = [(len("".join(pieces[:n])), len("".join(pieces[: n + 1]))) for n in range(len(pieces))]
    groups = group_tokens(text, split_words(text), offsets, Span(start=0, stop=len(pieces)))
    return [("".join(pieces[g.span.start : g.span.stop]), g.kind) for g in groups]


def test_bytes_of_a_word_are_one_word_whatever_the_tokenizer_spells():
    expected = [("She", "word"), (" has", "word"), (" 16", "number"), (" eggs", "word"), (".\n", "end")]
    assert grouped("She", " has", " ", "1", "6", " eggs", ".", "\n") == expected
    assert grouped(*"She has 16 eggs.\n") == expected
    assert grouped("She", " has", " 16", " eggs", ".\n") == expected


def test_format_closes_what_stands_before_it():
    assert grouped("So", ",", " (", "3", ")", " is", ".") == [
        ("So, (", "word"),
        ("3)", "number"),
        (" is", "word"),
        (".", "end"),
    ]
    assert grouped("**", "So", "**", " 3") == [("**So**", "word"), (" 3", "number")]
    assert grouped("Face", "<|im_end|>", "\n", "<|im_start|>user", "\n", "Ann", "?") == [
        ("Face", "word"),
        ("<|im_end|>\n<|im_start|>user\n", "end"),
        ("Ann", "word"),
        ("?", "end"),
    ]
    assert grouped("\n", "\n") == [("\n\n", "end")]


@given(
    st.lists(
        st.sampled_from(["1", ".", "a", " ", "\n", " eggs", "$", "-", "<|im_end|>", "", "é", "**", "="]), min_size=1
    )
)
def test_groups_tile_the_tokens_and_words_are_never_cut(pieces):
    text = "".join(pieces)
    offsets = [(len("".join(pieces[:n])), len("".join(pieces[: n + 1]))) for n in range(len(pieces))]
    words = split_words(text)
    groups = group_tokens(text, words, offsets, Span(start=0, stop=len(pieces)))
    assert [token for group in groups for token in group.span] == list(range(len(pieces)))
    for word in words:
        inside = [
            n for n, g in enumerate(groups) if any(word.span.start <= offsets[t][0] < word.span.stop for t in g.span)
        ]
        spelled = [n for n in inside if any(offsets[t][1] > offsets[t][0] for t in groups[n].span)]
        assert len(spelled) <= 1 or any(a < word.span.start < b for a, b in offsets), "one group a word"
    assert all(isinstance(group.word, CharSpan) for group in groups)
