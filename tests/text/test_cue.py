"""What announces an answer, and nothing else."""

import pytest

from flowtracer.text.answer import locate_answer
from flowtracer.text.cue import cue_of
from flowtracer.text.span import CharSpan

CASES = [
    ("so 9.", "\nA: ", "18"),
    ("so 9.", "\n\n  A : ", "18"),
    ("x = 3.", " The answer is \\boxed{", "18}."),
    ("x = 3.", " The answer is: $\\boxed{", "18}$"),
    ("So", "\n#### ", "18"),
    ("", "**Final Answer:** \\(", "18\\)"),
    ("", "<answer>\n", "18\n</answer>"),
    ("", "Therefore, the final answer to the question is **", "18**."),
    ("we conclude that", " the answer is ", "18"),
    ("so 9.\n", "", "18"),
    ("9 + 9 = ", "", "18"),
    ("Part A: ", "", "18"),
    ("A plan: ", "", "18"),
    ("my answering is ", "", "18"),
]


@pytest.mark.parametrize(("before", "cue", "behind"), CASES)
def test_the_cue_is_all_that_announces_the_answer(before, cue, behind):
    text = before + cue + behind
    start = len(before + cue)
    assert cue_of(text, CharSpan(start=start, stop=start + 2)) == CharSpan(start=len(before), stop=start)


@pytest.mark.parametrize("cue", ["\nA: ", "\n#### ", " The answer is ", " \\boxed{", "\n<answer>"])
def test_every_rule_that_locates_an_answer_has_its_cue(cue):
    text = f"3 + 4 = 7.{cue}7"
    text += {" \\boxed{": "}", "\n<answer>": "</answer>"}.get(cue, "")
    found = locate_answer(text)
    assert cue_of(text, found.span).start == len("3 + 4 = 7.")


def test_hostile_text_costs_no_more():
    text = "answer is " * 40_000 + "\n" * 200_000 + "A: 18"
    cue = cue_of(text, CharSpan(start=len(text) - 2, stop=len(text)))
    assert text[cue.start : cue.stop].strip() == "A:"
    assert len(text) - cue.start <= 130, "a cue is looked for in a window"
