"""Hubs and paths among words and steps: against every walk of a small trace, one by one."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from flowtracer.errors import InputError
from flowtracer.text.span import Span
from flowtracer.trace.unit_flow import UnitFlow
from synthetic import RIGHT, synthetic_trace
from tolerances import assert_close
from traces import make_trace

PROMPT = ("Ann", " 3", "\n")
RESPONSE = ("3", "+", " ", "4", ".", "\n", "So", "\n", "A", ":", " 7")
CUE = 3  # its line break, "A" and ":"


def small():
    return synthetic_trace(RESPONSE, PROMPT)


def walks(trace):
    """Every walk from question to answer with its probability, by following the edges."""
    onward = {}
    for source, target, flow in zip(trace.edges.source, trace.edges.target, trace.edges.flow, strict=True):
        onward.setdefault(int(source), []).append((int(target), flow / trace.flow[source]))
    found = {}
    open_walks = [((int(token),), trace.source[token]) for token in np.flatnonzero(trace.source)]
    while open_walks:
        walk, share = open_walks.pop()
        if walk[-1] in trace.sink:
            found[walk] = share
        else:
            open_walks += [((*walk, target), share * chance) for target, chance in onward.get(walk[-1], [])]
    return found


def places(reading, walk):
    """The units that a walk passes."""
    unit = [place for place, unit in enumerate(reading.units) for _ in unit.span]
    return tuple(dict.fromkeys(unit[token] for token in walk))


@pytest.mark.parametrize("level", ["tokens", "words", "steps"])
def test_units_tile_the_tokens(level):
    for trace in (small(), synthetic_trace(RIGHT), make_trace(), synthetic_trace(("7",))):
        units = UnitFlow(trace, level).units
        assert [token for unit in units for token in unit.span] == list(range(len(trace)))


def test_units_are_what_a_person_would_name():
    units = UnitFlow(small(), "words").units
    assert [(unit.label, unit.kind, unit.step) for unit in units] == [
        ("Ann", "word", 0),
        ("3", "number", 0),
        ("end of the prompt", "end", 0),
        ("3", "number", 1),
        ("+", "operator", 1),
        ("4", "number", 1),
        ("end of step 1", "end", 1),
        ("So", "word", 2),
        ("7", "answer", 2),
    ]
    units = UnitFlow(small(), "steps").units
    assert [unit.name for unit in units] == ["the prompt", "step 1 “3+ 4.”", "step 2 “So”", "“7”"]


@pytest.mark.parametrize("level", ["words", "steps"])
def test_flow_through_and_between_units_is_that_of_all_walks(level):
    trace = small()
    reading = UnitFlow(trace, level)
    graph = reading.graph
    through, between = Counter(), Counter()
    for walk, share in walks(trace).items():
        way = places(reading, walk)
        for place in way:
            through[place] += share
        for pair in itertools.pairwise(way):
            between[pair] += share
    assert_close(graph.flow, [through[place] for place in range(len(reading.units))])
    for place, unit in enumerate(reading.units):
        assert_close(graph.flow[place], trace.share_through(list(unit.span)))
    found = dict(zip(zip(graph.edges.source, graph.edges.target, strict=True), graph.edges.flow, strict=True))
    assert found.keys() == between.keys()
    assert_close(list(found.values()), [between[pair] for pair in found])
    assert (np.diff(graph.edges.flow) <= 0).all()


@pytest.mark.parametrize("level", ["words", "steps"])
def test_paths_are_the_most_probable_ways_with_the_share_of_all_their_walks(level):
    trace = small()
    reading = UnitFlow(trace, level)
    ways = Counter()
    for walk, share in walks(trace).items():
        ways[places(reading, walk)] += share
    best = ways.most_common()
    paths = reading.paths(len(best))
    assert_close([path.share for path in paths], [share for _, share in best])
    for path in paths:
        assert_close(path.share, ways[tuple(reading.units.index(unit) for unit in path.units)])
        assert all(token in unit.span for token, unit in zip(path.tokens, path.units, strict=True))
    assert_close(sum(path.share for path in paths), 1)


def test_paths_through_tokens_are_the_walks_themselves():
    trace = small()
    best = Counter(walks(trace)).most_common(5)
    assert [path.tokens for path in trace.paths(5, level="tokens")] == [walk for walk, _ in best]
    assert all(path.exact for path in trace.paths(5, level="tokens"))


@pytest.mark.parametrize("kept", [5, 12, 25])
def test_with_edges_cut_flow_through_words_is_an_upper_bound_and_through_whole_steps_exact(kept):
    trace = small()
    cut = dataclasses.replace(trace, edges=trace.edges.top(kept))
    assert not cut.edges.complete
    whole, less = UnitFlow(trace, "words").graph.flow, UnitFlow(cut, "words").graph.flow
    assert (less >= whole - 1e-12).all()
    steps, cut_steps = UnitFlow(trace, "steps").graph.flow, UnitFlow(cut, "steps").graph.flow
    assert_close(cut_steps[:2], steps[:2])  # the last is not whole: it ends in the answer's cue
    best = {path.units: path.share for path in trace.paths(999, level="words")}
    assert all(path.share <= best[path.units] + 1e-12 for path in cut.paths(5, level="words"))


def test_the_answer_and_its_cue_are_never_a_hub():
    trace = small()
    first = trace.answer.start - CUE
    for level in ("tokens", "words", "steps"):
        for prompt in (False, True):
            tokens = {t for hub in trace.hubs(99, level=level, prompt=prompt) for t in hub.unit.span}
            assert tokens == set(range(0 if prompt else trace.response.start, first))
    before = dataclasses.replace(trace, sink=Span(start=trace.answer.start - 1, stop=trace.answer.start))
    assert all(hub.unit.span.stop <= first for hub in before.hubs(99))


def test_hubs_rank_by_flow_or_by_what_exceeds_their_place():
    trace = small()
    assert all(hub.expected is None and hub.excess is None for hub in trace.hubs())
    with pytest.raises(InputError, match="by place alone"):
        trace.hubs(by="excess")
    expected = np.random.default_rng(0).random(len(trace))
    known = dataclasses.replace(trace, expected_flow=expected)
    np.testing.assert_array_equal(known.excess, trace.flow - expected)
    by_flow, by_excess = known.hubs(99), known.hubs(99, by="excess")
    assert [hub.unit for hub in by_flow] == [hub.unit for hub in trace.hubs(99)]
    assert [hub.flow for hub in by_flow] == sorted((hub.flow for hub in by_flow), reverse=True)
    assert [hub.excess for hub in by_excess] == sorted((hub.excess for hub in by_excess), reverse=True)
    assert [hub.unit for hub in by_flow] != [hub.unit for hub in by_excess]
    lengths = [len(hub.unit.span) for hub in by_flow]
    for hub in by_flow:  # the mean over its tokens, as often as a hub has tokens on average
        inside = expected[hub.unit.span.start : hub.unit.span.stop]
        assert hub.expected == pytest.approx(inside.mean() * np.mean(lengths))
        assert hub.excess == hub.flow - hub.expected


def test_a_hub_of_tokens_is_told_by_all_edges_and_one_of_words_by_its_own():
    trace = synthetic_trace(RIGHT)
    for hub in trace.hubs(99, level="tokens"):
        assert (hub.fan_in, hub.fan_out) == (trace.fan_in[hub.token], trace.fan_out[hub.token])
    for hub in trace.hubs(99, level="words"):
        assert hub.fan_in <= trace.fan_in[hub.unit.span.start : hub.unit.span.stop].sum() + 1e-9
        assert hub.throughput == 2 * hub.flow
        assert trace.flow[hub.token] == trace.flow[hub.unit.span.start : hub.unit.span.stop].max()


@pytest.mark.parametrize(("ask", "what"), [({"level": "letters"}, "level"), ({"by": "size"}, "hubs by")])
def test_what_does_not_exist_is_refused(ask, what):
    with pytest.raises(InputError, match=f"expected .*{what}"):
        small().hubs(**ask)


def test_short_representations_say_what_and_where():
    trace = dataclasses.replace(small(), expected_flow=np.full(len(small()), 0.01))
    hub, path = trace.hubs(1, level="steps")[0], trace.paths(1)[0]
    assert repr(hub).startswith("<Hub step 1 “3+ 4.” at 3 in step 1: ")
    assert "by place alone" in repr(hub)
    assert repr(path) == f"<Path {path.share:.1%}: {path.way}>"
    assert path.way.startswith("the prompt → ")
    ways = {path.way for path in trace.paths(20, level="words")}
    assert {"“Ann” (prompt) → “7”", "“3” (prompt) → end of step 1 → “7”"} <= ways
    assert repr(trace) == "<Trace s: 14 tokens, 3 steps, answer 7; synthetic>"
    assert repr(make_trace()) == "<Trace 7: 4 tokens, 1 steps, answer 3, right; tiny>"


@pytest.mark.parametrize("level", ["words", "steps"])
def test_the_backbone_of_units_is_the_shortest_prefix_with_the_share(level):
    trace = small()
    reading = UnitFlow(trace, level)
    for share in (0.3, 1.0):
        found = trace.backbone(share, level=level)
        kept = set(zip(found.edges.source.tolist(), found.edges.target.tolist(), strict=True))
        inside = sum(
            chance for walk, chance in walks(trace).items() if set(itertools.pairwise(places(reading, walk))) <= kept
        )
        assert_close(found.share, inside)
        assert found.share >= share - 1e-6
