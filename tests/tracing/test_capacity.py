"""Every capacity over every graph: conserved, the same however it is computed, and told truly by a saved trace."""

import dataclasses
import functools
from itertools import pairwise

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.attention.capacity import CAPACITIES, GRAPHS, LayeredPanels
from flowtracer.errors import InputError
from flowtracer.flow import reference
from flowtracer.flow.layered import ENDS
from flowtracer.model.capture import attention_layers, record_attention
from flowtracer.trace.unit_flow import UnitFlow
from tiny import tiny_model, tiny_tokenizer
from tolerances import assert_close

PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys 4 more. How many?"}]
RESPONSES = ["3 + 4 = 7.\nSo the answer is \\boxed{7}. Done.", "Then 12 * 5 = 60.\n#### 60", "<answer>18</answer>"]
COMBINATIONS = [(capacity, graph) for capacity in CAPACITIES for graph in GRAPHS]
every_combination = pytest.mark.parametrize(("capacity", "graph"), COMBINATIONS)


@functools.cache
def tracer_of(capacity, graph, **options):
    return ft.Tracer(tiny_model(), tiny_tokenizer(), capacity=capacity, graph=graph, **options)


def rollouts():
    return [ft.Rollout(prompt=PROMPT, response=response, id=str(n)) for n, response in enumerate(RESPONSES)]


def assert_same(one, other, rtol=1e-4):
    for name in ("reach", "flow", "source", "fan_in", "fan_out", "step_flow"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6, rtol=rtol, err_msg=name)


@every_combination
@pytest.mark.parametrize("at", ["token", "prediction"])
def test_flow_is_conserved(capacity, graph, at):
    for ends in ENDS if graph == "layered" else ENDS[:1]:
        trace = tracer_of(capacity, graph, at=at, ends=ends).trace(PROMPT, RESPONSES[0])
        assert trace.conservation_error() < 1e-9
        assert trace.edges.complete
        assert not trace.flow[trace.sink.stop :].any()
        assert (trace.capacity, trace.graph, trace.at) == (capacity, graph, at)
        assert trace.ends == (ends if graph == "layered" else "question")
        crossing = trace.source[: trace.question.stop].sum()
        assert crossing == pytest.approx(1) or trace.ends == "anywhere"


@every_combination
def test_alone_padded_packed_and_streamed_are_one(capacity, graph):
    tracer = tracer_of(capacity, graph)
    alone = [tracer.trace_batch([rollout])[0] for rollout in rollouts()]
    streamed = tracer_of(capacity, graph, memory_budget=0).trace_batch(rollouts())
    for results in (tracer.trace_batch(rollouts()), tracer.trace_batch(rollouts(), pack=True), streamed):
        for one, other in zip(alone, results, strict=True):
            assert_same(one, other)


def test_attention_over_tokens_is_what_it_was():
    plain = ft.Tracer(tiny_model(), tiny_tokenizer()).trace(PROMPT, RESPONSES[0])
    named = tracer_of("attention", "tokens").trace(PROMPT, RESPONSES[0])
    assert plain == named
    assert (plain.at, plain.layers, plain.layer_graph) == ("token", (1,), None)
    layered = tracer_of("attention", "layered").trace(PROMPT, RESPONSES[0])
    assert (layered.at, layered.layers) == ("prediction", tuple(attention_layers(tiny_model())))


def test_capacities_differ():
    flows = [tracer_of(*each).trace(PROMPT, RESPONSES[0]).flow for each in COMBINATIONS]
    for number, flow in enumerate(flows):
        for other in flows[:number]:
            assert np.abs(flow - other).max() > 1e-2


@pytest.mark.parametrize("capacity", sorted(CAPACITIES))
@pytest.mark.parametrize("ends", ENDS)
def test_layered_flow_is_the_references(capacity, ends):
    tracer = tracer_of(capacity, "layered", ends=ends)
    item = tracer._encode(rollouts()[0])
    ids = torch.from_numpy(item.text.token_ids[: item.needed])[None]
    layers = tracer._read(ids, [item])
    panels = LayeredPanels([CAPACITIES[capacity](layer) for layer in layers])
    masks = [torch.from_numpy(span.mask(item.needed))[None] for span in (item.question, item.sink)]
    expected = reference.solve_layered(panels, *masks, ends=ends)[0]
    assert_close(tracer.trace(PROMPT, RESPONSES[0]).flow[: item.needed], expected, torch.float32)


@pytest.mark.parametrize("ends", ENDS)
def test_a_trace_over_layers_tells_what_walks_do(ends):
    trace = tracer_of("alti", "layered", ends=ends).trace(PROMPT, RESPONSES[1])
    places = len(trace.layers) + 1
    assert trace.layer_graph.flow.shape == (places, len(trace))
    # Any set of tokens that no walk gets around is passed for sure; one token is, as often as it has flow.
    assert trace.share_through(list(range(len(trace)))) == pytest.approx(1)
    for hub in trace.hubs(3, level="tokens"):
        assert trace.share_through([hub.token]) == pytest.approx(trace.flow[hub.token], abs=1e-9)
    paths = trace.paths(4, level="tokens")
    assert [path.share for path in paths] == sorted((path.share for path in paths), reverse=True)
    for path in paths:
        assert path.exact
        assert all(early < late for early, late in pairwise(path.tokens))
        assert len(path.layers) == len(path.tokens) - 1
        assert all(early < late for early, late in pairwise(path.layers)), "a layer moves a walk at most once"
        assert set(path.layers) <= set(trace.layers)
    backbone = trace.backbone(0.5)
    assert 0.5 - 1e-6 <= backbone.share <= 1
    assert (backbone.edges.source < backbone.edges.target).all()
    whole = trace.backbone(1.0)
    assert whole.share == pytest.approx(1)
    flows = {(s, t): f for s, t, f in zip(trace.edges.source, trace.edges.target, trace.edges.flow, strict=True)}
    told = zip(whole.edges.source, whole.edges.target, whole.edges.flow, strict=True)
    assert all(flow <= flows[source, target] + 1e-9 for source, target, flow in told)


def test_fewer_edges_make_no_claim_that_they_cannot_keep():
    whole = tracer_of("alti", "layered").trace(PROMPT, RESPONSES[1])
    few = tracer_of("alti", "layered", max_edges=60).trace(PROMPT, RESPONSES[1])
    assert not few.layer_graph.edges.complete
    hubs = [hub.token for hub in whole.hubs(3)]
    assert few.share_through(hubs) <= whole.share_through(hubs) + 1e-9
    for path, true in zip(few.paths(3), whole.paths(3), strict=False):
        assert not path.exact or path.share == pytest.approx(true.share)


@every_combination
def test_saved_and_loaded(capacity, graph, tmp_path):
    trace = tracer_of(capacity, graph).trace(PROMPT, RESPONSES[0])
    loaded = ft.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert loaded == trace
    assert loaded.paths(2) == trace.paths(2)
    assert loaded.to_dict() == trace.to_dict()
    assert dataclasses.replace(trace, capacity="another") != trace
    assert "The answer 7" in loaded.summary()


def test_a_pass_over_the_text_gives_what_attention_alone_needs():
    model = tiny_model()
    layered = ft.Tracer(model, tiny_tokenizer(), graph="layered")
    expected = layered.trace(PROMPT, RESPONSES[0])
    first = expected.response.start
    ids = expected.token_ids.tolist()
    rollout = ft.Rollout(prompt="", response="", token_ids=(ids[:first], ids[first:]))
    with record_attention(model, layered.reader.layers) as recorded, torch.no_grad():
        model(torch.from_numpy(expected.token_ids)[None], use_cache=False)
    assert_same(layered.trace_attention(rollout, layered.reader.choose(recorded)), expected)
    with pytest.raises(InputError, match=r"capacity='value' over tokens.*use trace\(\)"):
        ft.Tracer(model, tiny_tokenizer(), capacity="value").trace_attention(rollout, [])


@pytest.mark.parametrize(
    "options", [{"capacity": "colour"}, {"graph": "circular"}, {"ends": "nowhere"}, {"graph": "layered", "at": "top"}]
)
def test_options_that_do_not_exist(options):
    with pytest.raises(InputError, match=f"expected {list(options)[-1]} among"):
        ft.Tracer(tiny_model(), tiny_tokenizer(), **options)


@pytest.mark.parametrize("ends", ENDS)
def test_words_and_steps_of_a_trace_over_layers_are_read_off_its_walks(ends):
    trace = tracer_of("alti", "layered", ends=ends).trace(PROMPT, RESPONSES[0])
    for level in ("words", "steps"):
        reading = UnitFlow(trace, level)
        through = [trace.share_through(list(unit.span)) for unit in reading.units]
        assert_close(reading.graph.flow, through)
        assert trace.backbone(1.0, level=level).share == pytest.approx(1)
        half = trace.backbone(0.5, level=level)
        assert len(half.edges) < len(reading.graph.edges)
        assert half.share >= 0.5 - 1e-6
    paths = trace.paths(99, level="steps")
    assert sum(path.share for path in paths) == pytest.approx(1)
    assert trace.paths(1, level="tokens")[0].layers


def test_a_tracer_by_name_takes_the_same_options():
    tracer = ft.Tracer.from_pretrained("nano", dtype="float32", graph="layered", capacity="alti", ends="question")
    assert (tracer.graph, tracer.capacity, tracer.ends) == ("layered", "alti", "question")
    assert tracer.trace("2 + 3 = ?", "2 + 3 = 5\n#### 5").capacity == "alti"
