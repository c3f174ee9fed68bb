import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.text.answer import Answer, Miss, locate_answer
from flowtracer.text.steps import split_steps


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        # boxes
        (r"so \boxed{7}. Done.", "7", "boxed"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", "boxed"),
        (r"\boxed {7}", "7", "boxed"),
        (r"\fbox{7}", "7", "boxed"),
        (r"\boxed{ \{1, 2\} }", r"\{1, 2\}", "boxed"),
        (r"\boxed{1} then \boxed{2}", "2", "boxed"),
        (r"{ stray \boxed{7}", "7", "boxed"),
        (r"\boxed{7} \boxed{8", "7", "boxed"),
        (r"\boxed{7} but the answer is 8", "7", "boxed"),
        (r"\boxed{5!}", "5!", "boxed"),
        (r"\boxed{$7$}", "7", "boxed"),
        (r"so \\boxed{7}", "7", "boxed"),
        (r"x \\\boxed{7}", "7", "boxed"),
        # tags
        ("<answer>18</answer>", "18", "answer_tag"),
        ("<answer>1</answer> <ANSWER> 2 </ANSWER>", "2", "answer_tag"),
        ("so <answer> 18", "18", "answer_tag"),
        ("<answer>18</answer> #### 19", "18", "answer_tag"),
        ("<answer>18</answer>, in <answer> tags", "18", "answer_tag"),
        # hashes
        ("work\n#### 1,200", "1,200", "hashes"),
        ("#### 60\nDone.", "60", "hashes"),
        ("#### 5 apples\n", "5 apples", "hashes"),
        ("so 9 * 2 = 18 #### 18", "18", "hashes"),
        ("#### Step one\nThe answer is 5", "5", "answer_is"),
        # sentences
        ("The answer is 3.5.", "3.5", "answer_is"),
        ("the answer is **$1,234.50**. Thanks", "$1,234.50", "answer_is"),
        ("the final answer is $x + 1$.", "x + 1", "answer_is"),
        ("So the answer: 5. ok", "5", "answer_is"),
        ("Answer is: \\(7\\)", "7", "answer_is"),
        ("The answer is 1. No, the answer is 2.", "2", "answer_is"),
        ("the answer is 十二。然后", "十二", "answer_is"),
        ("**The answer is 5.** Thus", "5", "answer_is"),
        ("the answer is **7", "7", "answer_is"),
        ("the answer is $x$ and $y$.", "$x$ and $y$", "answer_is"),
        ('The answer is "yes." Done', "yes", "answer_is"),
        ("The answer\nis 5.\u2028More", "5", "answer_is"),
        ("the **answer**: 5", "5", "answer_is"),
        # labels
        ("Answer: 42", "42", "label"),
        ("**Answer:** 42", "42", "label"),
        ("**Final answer**: 42", "42", "label"),
        ("so 9 eggs\r\nA: 18\r\n", "18", "label"),
        ("A: 18<|im_end|>", "18", "label"),
        ("A: 1\nA: 2", "2", "label"),
        ("**Answer: 42**", "42", "label"),
        ("### Answer\uff1a42", "42", "label"),
        # an empty place gives way to the next rule
        ("\\boxed{}\nA: 3", "3", "label"),
        ("A: 4\nA:", "4", "label"),
    ],
)
def test_located(text, answer, rule):
    found = locate_answer(text)
    assert (found.text, found.rule) == (answer, rule)
    assert text[found.span.start : found.span.stop] == answer


@pytest.mark.parametrize(
    ("text", "miss"),
    [
        ("", Miss.EMPTY_RESPONSE),
        (" \n\t", Miss.EMPTY_RESPONSE),
        ("I do not know.", Miss.NO_ANSWER),
        ("Banana: 3", Miss.NO_ANSWER),
        (r"so \boxed{7", Miss.UNCLOSED_BOX),
        (r"so \boxed{}", Miss.EMPTY_ANSWER),
        ("<answer></answer>", Miss.EMPTY_ANSWER),
        ("A: **.**", Miss.EMPTY_ANSWER),
        ("#### Heading\ntext", Miss.NO_ANSWER),
        ("a: 3", Miss.NO_ANSWER),
        # what a broken box holds is no other rule's answer, and the first rule that came close is named
        (r"The answer is \boxed{7", Miss.UNCLOSED_BOX),
        (r"The answer is \boxed{}.", Miss.EMPTY_ANSWER),
        ("\\boxed{7\nA:", Miss.UNCLOSED_BOX),
    ],
)
def test_misses_are_named(text, miss):
    assert locate_answer(text) is miss
    assert miss.message.startswith("expected")


@pytest.mark.parametrize(
    ("text", "answer", "start"),
    [
        ("8 of 18 is 8", "8", 11),
        ("8 then 18 and 8.5 and 8,000", "8", 0),
        ("it is 8.", "8", 6),
        (r"\boxed{8} and 8", "8", 7),
        ("-8 or x=8", "8", 8),
        ("pay $8!", "$8", 4),
        ("10-8 is 2", "8", 3),
        ("共8个", "8", 1),
    ],
)
def test_a_given_answer_stands_by_itself(text, answer, start):
    found = locate_answer(text, answer)
    assert (found.span.start, found.text, found.rule) == (start, answer, "given")


@pytest.mark.parametrize("text", ["18 and 8.5", "0.8", "1,8", "none", "x8", "-8 or (-8)"])
def test_a_given_answer_that_stands_nowhere_is_a_miss(text):
    assert locate_answer(text, "8") is Miss.ANSWER_NOT_IN_TEXT


@given(st.text(max_size=60), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_a_planted_box_is_found(before, after):
    text = f"{before}\n\\boxed{{42}}\n{after}"
    found = locate_answer(text)
    assert isinstance(found, Answer)
    assert text[found.span.start : found.span.stop] == found.text
    if "\\" not in after and "\\" not in before and "{" not in before:
        assert found.text == "42"


@given(st.text(max_size=200))
def test_a_located_answer_is_what_stands_there(text):
    found = locate_answer(text)
    if isinstance(found, Answer):
        assert text[found.span.start : found.span.stop] == found.text
        assert found.text == found.text.strip() != ""


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("One.\r\nTwo. \nthree", ["One.\r\n", "Two. \n", "three"]),
        ("\\$5. Then 6\\\\[2pt] more. So", ["\\$5. ", "Then 6\\\\[2pt] more. ", "So"]),
        ("It is $7\nor 5$. Then $8. So", ["It is $7\n", "or 5$. ", "Then $8. ", "So"]),
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ("a line\n\nanother\n", ["a line\n\n", "another\n"]),
        ("It is 3.5 apples. Then 1,000. Fine.", ["It is 3.5 apples. ", "Then 1,000. ", "Fine."]),
        ("See e.g. this vs. that. Dr. Who.", ["See e.g. this vs. that. ", "Dr. Who."]),
        ("1. First do it. 2. Then that.", ["1. First do it. ", "2. Then that."]),
        ("It costs $5. Then $6. Ok", ["It costs $5. ", "Then $6. ", "Ok"]),
        ("Let $f(x) = 1. A$ hold. So.", ["Let $f(x) = 1. A$ hold. ", "So."]),
        ("\\[\nx = 1.\n\\]\nSo", ["\\[\nx = 1.\n\\]\n", "So"]),
        ("\\[\nx = 1.\nnever closed", ["\\[\n", "x = 1.\n", "never closed"]),
        ('He said "no." Then left.', ['He said "no." ', "Then left."]),
        ("你好。再见。", ["你好。", "再见。"]),
        ("\n\n one\ntwo", ["\n\n one\n", "two"]),
        ("wait... what", ["wait... what"]),
    ],
)
def test_steps(text, steps):
    assert [text[span.start : span.stop] for span in split_steps(text)] == steps


@given(st.text(st.sampled_from("ab .!?\n$\\[]()1,。\u2028\r"), max_size=80) | st.text(max_size=80))
def test_steps_tile_any_text(text):
    steps = split_steps(text)
    assert "".join(text[s.start : s.stop] for s in steps) == text
    assert all(s.start < s.stop for s in steps)
    assert [s.start for s in steps[1:]] == [s.stop for s in steps[:-1]]
    assert len(steps) < 2 or all(text[s.start : s.stop].strip() for s in steps), "white space alone is no step"


HOSTILE = [
    "\\boxed{",
    " ",
    "answer is ",
    "answer: ",
    "<answer>",
    ".",
    "$a ",
    "\n",
    "A:",
    "{",
    "\\[",
    "x. ",
    "#### ",
    "**",
]


@pytest.mark.parametrize(
    ("prefix", "piece"),
    [("", piece) for piece in HOSTILE]
    + [("", "\\boxed  "), ("", "</s>"), ("answer is ", "\\( "), ("#### ", "1"), ("answer is 5", ")")],
)
def test_a_megabyte_of_hostile_text_is_no_trap(prefix, piece):
    text = prefix + piece * (1_000_000 // len(piece))
    locate_answer(text)
    locate_answer(text, "8")
    assert sum(s.stop - s.start for s in split_steps(text)) == len(text)


def test_a_long_number_that_is_no_heading_is_read_once():
    assert locate_answer("#### " + "1" * 1_000_000 + " x\ntext") is Miss.NO_ANSWER
