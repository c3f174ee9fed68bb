"""Responses and intervals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.evaluate import accuracy, gain, judge, respond
from flowtracer.models import load_model
from flowtracer.tasks import Planted
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def nano():
    return load_model("nano")


@pytest.fixture(scope="module")
def problems():
    return Planted(chains=2, length=2).problems("test", 12)


def test_greedy_responses_do_not_depend_on_the_batch(nano, problems):
    together = respond(*nano, problems)
    assert respond(*nano, problems, batch_size=5) == together
    assert respond(*nano, problems[::-1], batch_size=1) == together[::-1]
    assert all(response.endswith("</answer>") for response in together)


def test_sampling_is_seeded_and_leaves_the_global_state_alone(nano, problems):
    state = torch.random.get_rng_state()
    nano[0].train()
    one, same, other = (respond(*nano, problems, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), state)
    assert nano[0].training
    nano[0].eval()


def test_a_response_is_cut_at_its_longest(nano, problems):
    tokenizer = nano[1]
    for response in respond(*nano, problems, max_new_tokens=5):
        assert len(tokenizer(response)["input_ids"]) == 5


def test_judging_is_the_tasks(problems):
    task = Planted(chains=2, length=2)
    verdicts = judge(task, problems[:2], [f"<answer>{problems[0].gold}</answer>", "hm"])
    assert [verdict.correct for verdict in verdicts] == [True, False]


def test_without_a_chat_template(problems):
    tokenizer = tiny_tokenizer().__class__(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    with pytest.raises(InputError, match="chat template"):
        respond(tiny_model(), tokenizer, problems)


def test_wilson_by_hand():
    # Wilson's interval of 8 of 10, as in Brown, Cai and DasGupta (2001).
    estimate = accuracy([True] * 8 + [False] * 2)
    assert (estimate.mean, estimate.items) == (0.8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert estimate.percent() == "80.0 % [49.0, 94.3]"


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_accuracy_lies_in_its_interval(correct):
    estimate = accuracy(correct)
    tiny = 1e-12  # of rounding
    assert -tiny <= estimate.low <= estimate.mean + tiny
    assert estimate.mean - tiny <= estimate.high <= 1 + tiny


def test_a_gain_is_paired():
    before = [True, False] * 100
    assert gain(before, before) == gain(before, list(before))
    assert gain(before, before).low == gain(before, before).high == 0
    after = [True] * 200
    estimate = gain(before, after)
    assert estimate.mean == 0.5
    assert estimate.low < 0.5 < estimate.high
    assert gain(after, before).mean == -0.5


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_gain_needs_the_same_problems(before, after):
    with pytest.raises(InputError, match="same problems"):
        gain(before, after)
    with pytest.raises(InputError, match="at least one"):
        accuracy([])
