"""Groups of responses: which steps right and wrong share, where they part, and what flowed differently."""

import itertools
import json
import math
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowtracer as ft
from flowtracer.intervals import LEVEL, can_tell, difference_of_means
from flowtracer.text.words import split_words
from flowtracer.trace.alignment import said
from flowtracer.trace.group_steps import SaidStep, Sides, branches, shared_steps, told_sides
from synthetic import synthetic_trace

FIRST, SECOND, THIRD, OTHER = "3 + 4 = 7.\n", "So x = 7.\n", "Then 7 * 2 = 14.\n", "3 * 4 = 12.\n"


@cache
def responded(*steps):
    """A trace of these steps, whose last piece is the answer behind its cue."""
    *lines, answer = steps
    pieces = [piece for line in lines for word in split_all(line) for piece in word]
    return synthetic_trace((*pieces, "A", ":", " ", answer), metadata={"id": answer})


def split_all(line):
    """Words with the white space and marks behind each, as tokens."""
    stops = [word.span.stop for word in split_words(line)]
    bounds = [0, *stops[:-1], len(line)]
    return [[line[a:b]] for a, b in itertools.pairwise(bounds)]


def graded(trace, correct=None, **known):
    verdict = {} if correct is None else {"is_correct": correct}
    return replace(trace, metadata={**trace.metadata, **verdict, **known})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("So x is 7.", "so   X is 7\n"),
        ("60 x 3 = 180", "The second month had 3*60 = $180 downloads.\n"),
        ("He has 1,200 left", "He has 1200 left."),
        ("r=l+5, l is 0, r is 5.", "r = l + 5 ; l is 0 and r is 5"),
        ("**", "** \n"),
    ],
)
def test_the_same_step_in_other_words(one, other):
    assert said(one) == said(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("p=y+3, y is 3, p is 6.", "n=y+3, y is 3, n is 6."),
        ("180 - 54 = 126", "180 - 126 = 54"),
        ("l=0, l is 0.", "j=0, j is 0."),
        ("She walks 3 of 5 miles.", "He buys 3 for 5 dollars."),
        ("3 + 4 = 7", "3 + 4 = 8"),
        ("x", "y"),
        ("**", "--"),
    ],
)
def test_steps_that_differ(one, other):
    assert said(one) != said(other)


@pytest.fixture(scope="module")
def group():
    return ft.compare_group(
        [
            graded(responded(FIRST, SECOND, THIRD, "14"), True),
            graded(responded(FIRST, SECOND, "7"), False),
            graded(responded(OTHER, SECOND, "12"), False),
            graded(responded(FIRST, SECOND, THIRD, "14"), True),
        ]
    )


def test_the_tree_of_what_they_begin_with(group):
    found = [(b.parent, b.step, b.texts, b.answer, b.members, b.right, b.wrong) for b in group.tree]
    shared = ("3 + 4 = 7.", "So x = 7.")
    assert found == [
        (None, 1, (), None, (0, 1, 2, 3), 2, 2),
        (0, 1, shared, None, (0, 1, 3), 2, 1),
        (1, 3, ("Then 7 * 2 = 14.",), "14", (0, 3), 2, 0),
        (1, 3, (), "7", (1,), 0, 1),
        (0, 1, ("3 * 4 = 12.", "So x = 7."), "12", (2,), 0, 1),
    ]
    assert group.parting() == 0
    assert "; right and wrong part at step 1; " in group.summary()
    flows = [[step.inflow for step in trace.steps()[1:]] for trace in group.traces]
    np.testing.assert_allclose(group.tree[1].shares, np.mean([flows[0][:2], flows[1][:2], flows[3][:2]], axis=0))


def test_what_right_and_wrong_share(group):
    steps = {step.text: step for step in group.steps}
    assert {text: (step.members, step.right, step.wrong) for text, step in steps.items()} == {
        "So x = 7.": ((0, 1, 2, 3), 2, 2),
        "3 + 4 = 7.": ((0, 1, 3), 2, 1),
        "Then 7 * 2 = 14.": ((0, 3), 2, 0),
    }
    flows = [trace.steps()[2].inflow for trace in group.traces]
    flow = steps["So x = 7."].flow
    assert flow.all == pytest.approx(np.mean(flows))
    assert flow.right == pytest.approx(np.mean([flows[0], flows[3]]))
    assert flow.wrong == pytest.approx(np.mean([flows[1], flows[2]]))
    assert flow.difference.mean == pytest.approx(flow.right - flow.wrong)
    assert (flow.difference.low, flow.difference.high, flow.told) == (-math.inf, math.inf, False)
    assert flow.to_dict()["difference"]["low"] is None
    assert steps["Then 7 * 2 = 14."].flow.difference is None
    sizes = [abs(step.flow.difference.mean) for step in group.steps if step.flow.difference]
    assert sizes == sorted(sizes, reverse=True)
    assert "too few to tell" in group.caveat()
    json.dumps(group.to_dict(), allow_nan=False)


def test_a_step_said_twice_counts_where_most_flows_through_it():
    twice = responded(FIRST, SECOND, FIRST, "7")
    step = next(s for s in ft.compare_group([twice, responded(FIRST, "7")]).steps if s.text == "3 + 4 = 7.")
    flows = [one.inflow for one in twice.steps()]
    assert step.places == (1, 1)
    assert step.flow.all == pytest.approx((max(flows[1], flows[3]) + responded(FIRST, "7").steps()[1].inflow) / 2)


def test_hubs_are_held_against_each_other(group):
    ranked = [trace.hubs(len(trace)) for trace in group.traces]
    for hub in group.hubs:
        flows = {}
        for member, hubs in enumerate(ranked):
            if same := [one.flow for one in hubs if one.label == hub.label]:
                flows[member] = max(same)
        assert set(hub.members) <= set(flows)
        assert hub.flow.all == pytest.approx(np.mean(list(flows.values())))
        assert 0 <= hub.flow.all <= 1


def test_right_and_wrong_by_reward():
    rewards = [1.0, 0.5, 0.0, None, math.nan]
    traces = [graded(responded(FIRST, "7"), reward=reward) for reward in rewards]
    assert told_sides(traces).of == ("right", None, "wrong", None, None)
    assert ft.compare_group(traces).caveat().startswith("1 right, 1 wrong, 3 neither, by reward above or below")
    assert told_sides([*traces, graded(traces[0], False)]).of == (None,) * 5 + ("wrong",)
    assert told_sides([graded(traces[0], reward=0.1)] * 3).told_by is None


def test_traces_of_different_kinds_are_named(group):
    assert "traced in different ways" not in group.caveat()
    other = replace(group.traces[0], capacity="value")
    assert "traced in different ways" in ft.compare_group([*group.traces[1:], other]).caveat()


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        (None, "None of the responses is known to be right or wrong"),
        (True, "2 right: there is nothing to hold them against."),
        (False, "2 wrong: there is nothing to hold them against."),
    ],
)
def test_groups_of_one_side(verdict, says):
    group = ft.compare_group([graded(responded(FIRST, answer), verdict) for answer in ("7", "8")])
    assert group.caveat().startswith(says)
    assert group.parting() is None
    assert [step.flow.difference for step in group.steps] == [None]


def test_responses_that_say_the_same_or_only_an_answer():
    same = ft.compare_group([graded(responded(FIRST, "7"), correct) for correct in (True, False)])
    assert [(branch.texts, branch.answer) for branch in same.tree] == [(("3 + 4 = 7.",), "7")]
    assert same.parting() is None
    bare = ft.compare_group([graded(responded("7"), True), graded(responded("8"), False)])
    assert [branch.answer for branch in bare.tree] == [None, "7", "8"]
    assert bare.steps == ()
    assert bare.parting() == 0


def test_a_step_is_never_an_answer():
    tree = ft.compare_group([responded("Answer 7.\n", "8"), responded("7")]).tree
    assert [(branch.texts, branch.answer) for branch in tree] == [((), None), ((), "7"), (("Answer 7.",), "8")]


step = st.tuples(st.sampled_from("abc"), st.integers(0, 9))
response = st.tuples(st.lists(step, max_size=4), st.sampled_from("ab"), st.sampled_from(["right", "wrong", None]))
groups = st.lists(response, min_size=2, max_size=7)


def said_by(group):
    """What responses say, each with an answer behind it, and which of them are right."""
    responses = []
    for drawn, answer, _ in group:
        lines = [SaidStep(key=key, text=key * 3, number=n + 1, share=tenth / 9) for n, (key, tenth) in enumerate(drawn)]
        responses.append([*lines, SaidStep(key=(None, answer), text=answer, number=len(lines) + 1, share=1.0)])
    return responses, Sides(of=tuple(side for *_, side in group), told_by="verdict")


def named(items, names):
    """What is said of responses, with whom it is said of by name."""
    found = [asdict(item) for item in items]
    for item in found:
        item["members"] = sorted(zip([names[m] for m in item["members"]], item.pop("places"), strict=True))
    return found


@given(groups, st.randoms())
def test_the_order_of_the_responses_changes_nothing(drawn, random):
    responses, sides = said_by(drawn)
    order = random.sample(range(len(responses)), len(responses))
    shuffled = [responses[at] for at in order], Sides(of=tuple(sides.of[at] for at in order), told_by="verdict")
    for analysis in (shared_steps, branches):
        assert named(analysis(*shuffled), order) == named(analysis(responses, sides), range(len(responses)))


@given(groups)
def test_counts_add_up_and_shares_are_shares(drawn):
    responses, sides = said_by(drawn)
    tree, steps = branches(responses, sides), shared_steps(responses, sides)
    children = {}
    for branch in tree:
        children.setdefault(branch.parent, []).append(branch)
    assert [branch.members for branch in children.pop(None)] == [tuple(range(len(responses)))]
    for place, ways in children.items():
        parent = tree[place]
        assert len(ways) > 1
        assert sorted(member for way in ways for member in way.members) == list(parent.members)
        assert (sum(way.right for way in ways), sum(way.wrong for way in ways)) == (parent.right, parent.wrong)
        assert {way.step for way in ways} == {parent.step + len(parent.texts)}
    assert sum(len(branch.members) for branch in tree if branch.answer is not None) == len(responses)
    for item in (*tree, *steps):
        assert item.right == sum(sides.of[member] == "right" for member in item.members)
        assert item.wrong == sum(sides.of[member] == "wrong" for member in item.members)
    shares = [share for branch in tree for share in branch.shares]
    for step in steps:
        shares += [share for share in (step.flow.all, step.flow.right, step.flow.wrong) if share is not None]
    assert all(0 <= share <= 1 for share in shares)


@given(groups)
def test_a_way_through_the_tree_tells_a_response(drawn):
    responses, sides = said_by(drawn)
    tree = branches(responses, sides)
    for member, steps in enumerate(responses):
        way = [branch for branch in tree if member in branch.members]
        assert [text for branch in way for text in branch.texts] == [step.text for step in steps[:-1]]
        assert way[-1].answer == steps[-1].text
        assert [branch.step for branch in way] == [branch.places[branch.members.index(member)] for branch in way]


@given(groups)
def test_what_two_say_is_shared(drawn):
    members = {key * 3: tuple(n for n, (steps, *_) in enumerate(drawn) if key in dict(steps)) for key in "abc"}
    found = {step.text: step.members for step in shared_steps(*said_by(drawn))}
    assert found == {text: having for text, having in members.items() if len(having) > 1}


values = st.lists(st.integers(0, 40).map(lambda n: n / 40), min_size=1, max_size=5)


@given(values, values, st.integers(-60, 60))
def test_the_interval_holds_what_the_permutation_test_does_not_refuse(one, other, quarters):
    found = difference_of_means(np.array(one), np.array(other))
    assert found.mean == pytest.approx(np.mean(one) - np.mean(other))
    assert found.low <= found.mean <= found.high
    assert math.isfinite(found.low) == can_tell(len(one), len(other))
    shift = quarters / 40 + 1 / 77  # never the difference of two means of these values
    moved = [value - shift for value in one]
    both = np.array([*moved, *other])
    sums = np.array([both[list(chosen)].sum() for chosen in itertools.combinations(range(len(both)), len(one))])
    tail = (1 - LEVEL) / 2 * len(sums)
    refused = min((sums >= sum(moved) - 1e-9).sum(), (sums <= sum(moved) + 1e-9).sum()) <= tail
    between = min(found.mean, shift), max(found.mean, shift)
    if not (found.low <= shift <= found.high):
        assert refused
    elif not between[0] < found.low + 1e-12 and not between[1] > found.high - 1e-12:
        assert not refused


@given(values, values, st.floats(-2, 2))
def test_the_interval_moves_with_a_shift_and_turns_with_the_sides(one, other, shift):
    one, other = np.array(one), np.array(other)
    found, turned = difference_of_means(one, other), difference_of_means(other, one)
    moved = difference_of_means(one + shift, other)
    for bound, back in (("low", "high"), ("high", "low")):
        assert getattr(moved, bound) == pytest.approx(getattr(found, bound) + shift, abs=1e-9)
        assert getattr(turned, back) == pytest.approx(-getattr(found, bound), abs=1e-9)


def test_the_interval_of_chance_holds_no_difference():
    draw = np.random.default_rng(0)
    for sizes in ((5, 3), (12, 9)):
        held = [
            found.low <= 0 <= found.high
            for found in (difference_of_means(*(draw.exponential(size=size) for size in sizes)) for _ in range(200))
        ]
        assert 0.9 <= np.mean(held) < 1
    far = difference_of_means(np.array([0.5, 0.6, 0.7, 0.5]), np.array([0.1, 0.2, 0.1, 0.0]))
    assert far.low > 0
    assert math.isnan(difference_of_means(np.empty(0), np.ones(3)).mean)
