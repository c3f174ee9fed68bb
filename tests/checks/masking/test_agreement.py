"""Agreement of scores with the effects of single tokens."""

import dataclasses

import numpy as np
import pytest

import flowtracer as ft
from flowtracer.checks.masking import TokenScorer, agree, agreement_of, summarise_agreement, with_all_effects
from flowtracer.errors import InputError
from tiny import tiny_model, tiny_tokenizer

PROMPT = "Ann has 3 apples and buys 4 more. How many?\n"
RESPONSE = "First add the numbers. So 3 + 4 = 7 apples.\nThe answer is \\boxed{7}. Done."


@pytest.fixture(scope="module")
def measured():
    model = tiny_model()
    return model, with_all_effects(model, ft.Tracer(model, tiny_tokenizer()).trace(PROMPT, RESPONSE))


def places(trace):
    return np.arange(trace.response.start, trace.answer.start)


def sizes(trace):
    """Sizes of effect at the places of the response, and 0 from the answer on."""
    found = np.zeros(len(trace) - trace.response.start)
    for token, change in trace.effects.items():
        found[token - trace.response.start] = abs(change)
    return found


def test_the_truth_agrees_with_itself_and_its_reverse_disagrees(measured):
    _, trace = measured
    found = agree(trace, {"truth": sizes(trace) ** 3, "reverse": -sizes(trace)})
    assert found["truth"].correlation == pytest.approx(1)
    assert found["truth"].away == pytest.approx(1)
    assert found["reverse"].correlation == pytest.approx(-1)
    by_hand = np.sort(sizes(trace))[::-1]
    assert found["truth"].top == pytest.approx(by_hand[: round(0.2 * len(places(trace)))].sum() / by_hand.sum())
    assert found["truth"].top > found["reverse"].top


def test_the_cue_is_left_out_where_it_shall_not_count(measured):
    _, trace = measured
    scores = sizes(trace)
    cue = np.arange(trace.answer.start - 6, trace.answer.start) - trace.response.start
    scores[cue] = -scores[cue]
    found = agree(trace, {"wrong at the cue": scores})["wrong at the cue"]
    assert found.away == pytest.approx(1)
    assert found.correlation < 1


def test_strategies_score_the_very_tokens_of_the_trace(measured):
    model, trace = measured
    scorer = TokenScorer(model, tiny_tokenizer(), ["flow", "position"])
    found = agreement_of(scorer, trace)
    throughput = trace.throughput[trace.response.start :]
    expected = agree(trace, {"flow": throughput, "position": np.arange(float(len(throughput)))})
    for name in ("flow", "position"):
        assert dataclasses.astuple(found[name]) == pytest.approx(dataclasses.astuple(expected[name]), abs=1e-6)


def test_a_summary_is_ordered_and_paired_with_the_first(measured):
    _, trace = measured
    each = [agree(trace, {"reverse": -sizes(trace), "truth": sizes(trace)})] * 3
    best, worst = summarise_agreement(each)
    assert (best.name, worst.name) == ("truth", "reverse")
    assert best.over.mean == pytest.approx(2)
    assert worst.over.mean == 0


def test_a_trace_that_was_not_measured_is_refused(measured):
    _, trace = measured
    with pytest.raises(InputError, match="--effects all"):
        agree(dataclasses.replace(trace, effects={}), {"flow": sizes(trace)})
