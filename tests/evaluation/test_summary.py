"""avg@k and pass@k."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.evaluation.summary import pass_at, powers_of_two, summarise


def lines(*problems, **rest):
    return [
        {"id": str(n), "is_correct": right, "reason": "correct" if right else "no_answer", "found": "boxed"}
        | {"finished": right, "tokens": 10}
        | rest
        for n, answers in enumerate(problems)
        for right in answers
    ]


@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_pass_at_k_is_the_share_of_choices_that_hold_a_right_one(right):
    for k in range(1, len(right) + 1):
        chosen = list(combinations(right, k))
        assert pass_at(k, len(right), sum(right)) == pytest.approx(sum(map(any, chosen)) / len(chosen))


@given(st.integers(1, 200), st.data())
def test_pass_at_k_grows_with_k(samples, data):
    right = data.draw(st.integers(0, samples))
    values = [pass_at(k, samples, right) for k in range(1, samples + 1)]
    assert values[0] == pytest.approx(right / samples)
    assert values == sorted(values)
    assert values[-1] == (right > 0)


def test_pass_at_k_by_hand():
    # Chen et al. 2021, equation 1, for n = 4, c = 1, k = 2: 1 - C(3, 2) / C(4, 2).
    assert pass_at(2, 4, 1) == 0.5
    for wrong in [(0, 4, 1), (5, 4, 1), (2, 4, 5), (2, 4, -1)]:
        with pytest.raises(InputError, match="1 <= k <= samples"):
            pass_at(*wrong)


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_the_ks(samples, ks):
    assert powers_of_two(samples) == ks


def test_a_summary_by_hand():
    result = summarise("aime", lines([True, True], [True, False], [False, False]), ["no_gold", "no_gold"])
    assert (result.problems, result.samples) == (3, 2)
    assert result.average.mean == result.passes["1"].mean == pytest.approx(0.5)
    assert result.average.low < 0.5 < result.average.high
    assert result.passes["2"].mean == pytest.approx(2 / 3)
    assert result.finished == pytest.approx(0.5)
    assert result.tokens == 10
    assert result.reasons == {"correct": 3, "no_answer": 3}
    assert result.skipped == {"no_gold": 2}
    assert result.agreement is None


def test_no_right_answer_leaves_room_above():
    result = summarise("aime", lines(*[[False] * 4] * 30))
    assert result.average.mean == result.average.low == 0
    assert result.average.high == pytest.approx(0.1135, abs=1e-4)  # Wilson's interval of 0 in 30


def test_labels_are_compared():
    graded = [*lines([True], label=True), *lines([True, True], label=False), *lines([False], label=True)]
    agreement = summarise("x", [*graded, *lines([False], label=None)]).agreement
    assert (agreement.labelled, agreement.same, agreement.only_here, agreement.only_label) == (4, 1, 2, 1)


def test_nothing_to_summarise():
    with pytest.raises(InputError, match="at least one graded response of gsm8k"):
        summarise("gsm8k", [])
