"""Two responses side by side, and groups of them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowtracer as ft
from flowtracer.errors import InputError
from flowtracer.trace.alignment import align_steps
from flowtracer.trace.compare import shared_prefix
from synthetic import PROMPT, RIGHT, WRONG, synthetic_trace
from traces import make_trace


@pytest.fixture(scope="module")
def right():
    return synthetic_trace(RIGHT, metadata={"id": "r", "is_correct": True})


@pytest.fixture(scope="module")
def wrong():
    return synthetic_trace(WRONG, metadata={"id": "w", "is_correct": False})


def test_responses_to_two_prompts_are_refused():
    one, other = make_trace(metadata={"id": "a"}), make_trace("Q: 1 2 = 3", metadata={"id": "b"})
    with pytest.raises(InputError, match=r"responses to one prompt, got other prompts than the first's in \['b'\]"):
        ft.compare(one, other)


def test_where_they_part(right, wrong):
    found = ft.compare(right, wrong)
    assert found.shared_tokens == len(PROMPT) + 1
    assert found.shared_steps == 1
    assert (found.divergence.token, found.divergence.label_a, found.divergence.label_b) == (12, "+", "*")
    assert (found.divergence.step_a, found.divergence.step_b) == (1, 1)
    np.testing.assert_array_equal(found.throughput_difference, (wrong.throughput - right.throughput)[:12])
    assert "share 12 tokens and part at “+” against “*”" in found.summary()
    assert "the answers are 7 (right) and 12 (wrong)" in found.summary()


def test_a_trace_is_all_of_itself(right):
    found = ft.compare(right, right)
    assert found.divergence is None
    assert found.shared_tokens == len(right)
    assert found.shared_steps == len(right.step_spans)
    assert not found.steps
    assert not found.throughput_difference.any()
    assert [a for a, _ in found.hubs_kept] == [b for _, b in found.hubs_kept] == right.hubs()
    assert not found.hubs_lost
    assert not found.hubs_new
    assert found.summary().startswith("Both say the same 28 tokens")


def test_one_that_goes_on_where_the_other_ended():
    short = synthetic_trace(RIGHT)
    long = synthetic_trace((*RIGHT, ".", " Done"))
    assert ft.compare(short, long).divergence.label_a is None
    assert "part at the end against “.”" in ft.compare(short, long).summary()
    assert ft.compare(long, short).divergence.label_b is None


def test_both_directions_tell_the_same_story(right, wrong):
    there, back = ft.compare(right, wrong, hubs=8), ft.compare(wrong, right, hubs=8)
    assert {(a.token, b.token) for a, b in there.hubs_kept} == {(b.token, a.token) for a, b in back.hubs_kept}
    assert (there.hubs_lost, there.hubs_new) == (back.hubs_new, back.hubs_lost)
    np.testing.assert_array_equal(there.throughput_difference, -back.throughput_difference)


@pytest.mark.parametrize("n", [1, 4, 12])
def test_every_hub_has_one_fate(right, wrong, n):
    found = ft.compare(right, wrong, hubs=n)
    assert sorted(h.token for h in (*(a for a, _ in found.hubs_kept), *found.hubs_lost)) == sorted(
        h.token for h in right.hubs(n)
    )
    assert sorted(h.token for h in (*(b for _, b in found.hubs_kept), *found.hubs_new)) == sorted(
        h.token for h in wrong.hubs(n)
    )
    for a, b in found.hubs_kept:
        if a.token < found.shared_tokens or b.token < found.shared_tokens:
            assert a.token == b.token, "on the prefix the position decides"
        else:
            assert (a.label, a.kind) == (b.label, b.kind)


def test_a_hub_on_the_prefix_is_not_matched_with_a_word_after_it(right):
    """Every token is a hub; of A's hubs on the prefix each is the one at its place, whatever words follow."""
    other = synthetic_trace((" 3", " 3", " 3", " 4", " =", "7"))
    found = ft.compare(right, other, hubs=100)
    pairs = {a.token: b.token for a, b in found.hubs_kept}
    assert pairs[11] == 11
    assert all(b > 11 for a, b in pairs.items() if a > 11)


def test_steps_stand_side_by_side(right, wrong):
    pairs = ft.compare(right, wrong).steps
    assert [(pair.a, pair.b) for pair in pairs] == [(1, 1), (2, 2), (3, 3)]
    assert pairs[0].likeness == pytest.approx(0.6)
    assert 0.5 <= pairs[1].likeness < 1


def test_equal_steps_hold_the_alignment():
    a = [("x",), ("1", "+", "2", "=", "3"), ("so",), ("end",)]
    b = [("1", "+", "2", "=", "4"), ("new", "one"), ("so",), ("end",), ("more",)]
    pairs = [(pair.a, pair.b, pair.likeness) for pair in align_steps(a, b, 10)]
    assert pairs == [
        (10, None, 0), (11, 10, 0.8), (None, 11, 0), (12, 12, 1), (13, 13, 1), (None, 14, 0)
    ]  # fmt: skip


words = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("abc"), st.sampled_from("abcd")), max_size=6)


@given(a=words, b=words)
def test_an_alignment_keeps_every_step_once_and_in_order(a, b):
    pairs = align_steps(a, b, 0)
    assert [pair.a for pair in pairs if pair.a is not None] == list(range(len(a)))
    assert [pair.b for pair in pairs if pair.b is not None] == list(range(len(b)))
    for pair in pairs:
        assert (pair.likeness > 0) == (pair.a is not None and pair.b is not None)
        if pair.likeness == 1:
            assert a[pair.a] == b[pair.b]


def test_to_dict_is_json(right, wrong):
    content = json.loads(json.dumps(ft.compare(right, wrong).to_dict()))
    assert content["a"] == {"id": "r", "tokens": 28, "answer": "7", "verdict": "right"}
    assert len(content["throughput_difference"]) == content["shared_tokens"]
    assert {hub["label"] for hub in content["hubs_lost"]} <= {right.label(t) for t in range(len(right))}


def test_different_texts_share_what_they_share():
    assert shared_prefix(synthetic_trace(prompt=("x", " y")), synthetic_trace(prompt=("x", " z"))) == 1


def test_a_group(right, wrong):
    third = synthetic_trace((*RIGHT[:8], "7"), metadata={"id": "t", "is_correct": True})
    group = ft.compare_group([right, wrong, third])
    assert group.shared_tokens == 12
    assert group.pair_tokens.tolist() == [[28, 12, 19], [12, 28, 12], [19, 12, 20]]
    assert group.prompt_throughput.shape == (3, len(PROMPT))
    np.testing.assert_allclose(
        group.prompt_difference(), ((right.throughput + np.pad(third.throughput, (0, 8))) / 2 - wrong.throughput)[:11]
    )
    counts = [len(hub.members) for hub in group.hubs]
    assert counts == sorted(counts, reverse=True)
    for hub in group.hubs:
        assert hub.right + hub.wrong == len(hub.members)
        assert hub.wrong == (1 in hub.members)
    assert group.summary().startswith("3 responses share 12 tokens and answer 7 (right), 12 (wrong)")
    json.dumps(group.to_dict())


def test_a_group_without_verdicts_or_hubs():
    group = ft.compare_group([synthetic_trace(("7",)), synthetic_trace(("8",))])
    assert group.prompt_difference() is None
    assert group.to_dict()["prompt_difference"] is None
    assert group.summary().endswith("none has a hub.")


def test_what_is_no_group(right):
    with pytest.raises(InputError, match="at least two"):
        ft.compare_group([right])
    with pytest.raises(InputError, match=r"one prompt, got other prompts .*'odd'"):
        ft.compare_group([right, synthetic_trace(prompt=("Ben", " has"), metadata={"id": "odd"})])
