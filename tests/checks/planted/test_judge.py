"""AUROC by hand."""

import numpy as np
import pytest

from flowtracer.checks.planted.cases import Case
from flowtracer.checks.planted.judge import Judgement, Key, auroc, judge, summarise
from flowtracer.tasks import Planted


def case_of(steps, needed, length):
    steps_SR = np.zeros((len(steps), length), dtype=bool)
    for row, tokens in enumerate(steps):
        steps_SR[row, tokens] = True
    return Case(
        problem=Planted().problems("test", 1)[0],
        text="",
        prompt_ids=[1],
        response_ids=list(range(length)),
        answer_R=np.zeros(length, dtype=bool),
        steps_SR=steps_SR,
        needed_S=np.array(needed),
        seed=0,
    )


@pytest.mark.parametrize(
    ("needed", "distractors", "expected"),
    [([3, 2], [1, 0], 1.0), ([0], [1, 2], 0.0), ([1, 1], [1], 0.5), ([2, 0], [1], 0.5), ([2, 1], [1, 0], 0.875)],
)
def test_auroc_by_hand(needed, distractors, expected):
    assert auroc(np.array(needed, dtype=float), np.array(distractors, dtype=float)) == expected


def test_sums_means_and_tokens_by_hand():
    # Step 0 (needed): 3, 1, 0. Step 1 (not): 2. Token 4, the least, is in no step.
    case = case_of([[0, 1, 2], [3]], [True, False], 5)
    found = judge(np.array([3.0, 1.0, 0.0, 2.0, -1.0]), case)
    # From the least: 4 + 2 + 1 against 3; means 7 / 3 against 3; of the tokens 4 alone exceeds 3.
    assert (found.steps, found.step_means, found.tokens) == (1.0, 0.0, pytest.approx(1 / 3))


def test_what_is_flat_says_nothing_whatever_the_lengths():
    case = case_of([[0, 1, 2], [3]], [True, False], 5)
    for level in (1.0, -0.3, 0.1 + 0.2):
        assert judge(np.full(5, level), case) == Judgement(steps=0.5, step_means=0.5, tokens=0.5)


def test_a_shift_changes_nothing_and_a_reversal_reverses():
    rng = np.random.default_rng(0)
    case = case_of([[0, 1], [2, 3], [4, 5], [6, 7]], [True, False, True, False], 9)
    scores_R = rng.integers(0, 50, 9).astype(float)
    found, shifted, reversed_ = (judge(values, case) for values in (scores_R, scores_R + 7, -scores_R))
    assert found == shifted
    assert (reversed_.steps, reversed_.tokens) == (1 - found.steps, 1 - found.tokens)


def test_a_token_across_a_border_speaks_for_neither_side():
    case = case_of([[0, 1], [1, 2]], [True, False], 3)
    assert judge(np.array([1.0, 5.0, 0.0]), case).tokens == 1.0


def test_intervals_are_over_the_problems_that_something_was_said_about():
    flow, grail = Key(name="flow", by="score"), Key(name="grail", by="score")
    one = Judgement(steps=1.0, step_means=0.5, tokens=0.5)
    other = Judgement(steps=0.0, step_means=0.5, tokens=1.0)
    silent = Key(name="flow", by="credit")
    rows = summarise([{flow: one}, {flow: other, grail: one}, {silent: one}])
    assert [(row.key.name, row.steps.items) for row in rows] == [("flow", 2), ("flow", 1), ("grail", 1)]
    assert (rows[0].steps.mean, rows[0].tokens.mean) == (0.5, 0.75)
    assert (rows[0].steps.low, rows[0].steps.high) == (0.0, 1.0)
