"""What is said of a trace everywhere in the same words."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.text.span import Span
from flowtracer.trace.measures import (
    concentration,
    concentration_curve,
    hub_share,
    made_by,
    reasoning,
    reward,
    step_of,
    verdict,
)
from synthetic import synthetic_trace
from traces import make_trace


def test_reasoning_stands_between_prompt_and_answer():
    trace = synthetic_trace()
    assert np.flatnonzero(reasoning(trace)).tolist() == list(range(11, 27))
    before = synthetic_trace(sink=Span(start=26, stop=27))
    assert np.flatnonzero(reasoning(before)).tolist() == list(range(11, 26)), "a prediction is where the flow ends"


@given(reasoning=st.integers(1, 60), tail=st.integers(0, 60), top=st.floats(0, 1))
def test_flat_flow_is_as_concentrated_as_its_share_of_tokens_whatever_follows_the_answer(reasoning, tail, top):
    trace = flat(reasoning, tail)
    assert concentration(trace) == pytest.approx(0.1)
    assert concentration(trace, top) == pytest.approx(top)


def flat(reasoning, tail):
    """A trace whose reasoning carries the same everywhere, with text behind the answer, which carries nothing."""
    flow = np.array([1.0, *[0.5] * reasoning, 1.0, *[0.0] * tail])
    answer = Span(start=1 + reasoning, stop=2 + reasoning)
    return make_trace(
        token_ids=np.arange(len(flow)),
        offsets=np.stack([np.arange(len(flow)), np.arange(1, len(flow) + 1)], 1),
        flow=flow,
        **dict.fromkeys(("reach", "source", "fan_in", "fan_out"), np.zeros(len(flow))),
        response=Span(start=1, stop=len(flow)),
        answer=answer,
        sink=answer,
    )


def test_concentration_is_a_lorenz_curve():
    trace = synthetic_trace()
    flow = np.sort(trace.flow[reasoning(trace)])[::-1]
    top = np.linspace(0, 1, len(flow) + 1)
    curve = concentration_curve(trace, top)
    np.testing.assert_allclose(np.diff(curve), flow / flow.sum())
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1)
    assert concentration_curve(synthetic_trace(("7",)), top) is None
    assert concentration(synthetic_trace(("7",))) == 0


def test_every_token_stands_in_the_step_whose_span_holds_it():
    trace = synthetic_trace()
    steps = [step_of(trace, token) for token in range(len(trace))]
    assert [np.flatnonzero(np.array(steps) == s).tolist() for s in range(len(trace.step_spans))] == [
        list(span) for span in trace.step_spans
    ]


def test_all_flow_passes_hubs_that_cut_the_graph():
    assert hub_share(make_trace()) == pytest.approx(1), "a and b are all there is between question and answer"
    assert hub_share(make_trace(), make_trace().hubs(1)) == pytest.approx(0.5)


def test_what_a_rollout_brought_along():
    graded = make_trace(metadata={"is_correct": False, "reward": 1})
    assert (verdict(graded), reward(graded.metadata)) == ("wrong", 1.0)
    assert verdict(make_trace()) == "right"
    assert reward({"reward": 10**400}) is None
    assert reward({"reward": float("nan"), "score": 0.5}) == 0.5
    plain = dataclasses.replace(graded, metadata={"reward": "high"})
    assert (verdict(plain), reward(plain.metadata)) == (None, None)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({}, ""),
        ({"capacity": "value"}, "weighed by value"),
        ({"graph": "layered", "ends": "anywhere"}, "layered walks"),
        ({"graph": "layered", "ends": "anywhere", "capacity": "alti"}, "layered walks, weighed by alti"),
        ({"graph": "layered", "ends": "question"}, "layered walks that end in the question"),
    ],
)
def test_what_a_trace_was_made_by_is_said_where_it_is_not_the_default(made, says):
    assert made_by(make_trace(**made)) == says
