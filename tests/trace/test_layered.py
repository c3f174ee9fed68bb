"""The graph over tokens and layers, worked by hand; and files that know of no such graph."""

from itertools import pairwise

import numpy as np
import pytest

from flowtracer.trace import load_trace
from flowtracer.trace import trace as trace_module
from flowtracer.trace.backbone import Edges
from flowtracer.trace.layered import LayerGraph
from traces import make_trace


def by_hand():
    """Two layers, three tokens: flow from token 0, by token 1 in either layer or straight, to token 2; or from token 1.

    Nodes are 0, 1, 2 below, 3, 4, 5 between, 6, 7, 8 above; walks end above token 2.
    """
    walks = {(0, 4, 8): 0.4, (0, 3, 8): 0.3, (0, 5, 8): 0.1, (1, 4, 8): 0.2}
    flow, edges = np.zeros(9), {}
    for walk, share in walks.items():
        flow[list(walk)] += share
        for pair in pairwise(walk):
            edges[pair] = edges.get(pair, 0) + share
    pairs = sorted(edges, key=edges.get, reverse=True)
    source, target = np.array(pairs).T
    kept = Edges(source=source, target=target, flow=np.array([edges[pair] for pair in pairs]), complete=True)
    return LayerGraph(edges=kept, flow=flow.reshape(3, 3), layers=(4, 7))


SINK = np.array([False, False, True])


def test_paths_name_the_layers_that_they_move_in():
    found = [(path.tokens, path.layers, pytest.approx(path.share)) for path in by_hand().paths(9, SINK)]
    assert found == [
        ((0, 1, 2), (4, 7), 0.4),
        ((0, 2), (7,), 0.3),  # stays in the first layer
        ((1, 2), (7,), 0.2),
        ((0, 2), (4,), 0.1),  # stays in the second
    ]


def test_shares_are_of_walks_and_not_of_products_along_tokens():
    graph = by_hand()
    assert graph.share_through([1], SINK) == pytest.approx(0.6)
    assert graph.share_through([0, 1], SINK) == pytest.approx(1)
    assert graph.share_through([2], SINK) == pytest.approx(1)


def test_a_backbone_is_told_by_tokens():
    whole = by_hand().backbone(1.0, SINK)
    assert whole.share == pytest.approx(1)
    told = {(s, t): f for s, t, f in zip(whole.edges.source, whole.edges.target, whole.edges.flow, strict=True)}
    assert told == {(1, 2): pytest.approx(0.6), (0, 1): pytest.approx(0.4), (0, 2): pytest.approx(0.4)}
    half = by_hand().backbone(0.4, SINK)
    assert half.share >= 0.4 - 1e-6
    assert len(half.edges) < 3


def test_a_graph_of_more_tokens_is_the_same():
    longer = by_hand().of_length(5)
    assert longer.flow.shape == (3, 5)
    sink = np.array([False, False, True, False, False])
    assert longer.paths(9, sink) == by_hand().paths(9, SINK)


def test_a_file_that_knows_of_no_graph_is_of_attention_over_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_module, "_GRAPH", ())
    file = make_trace(schema_version=3).save(tmp_path / "t.safetensors")
    monkeypatch.undo()
    old = load_trace(file)
    assert (old.capacity, old.graph, old.ends, old.layer_graph) == ("attention", "tokens", "question", None)
    assert old == make_trace()
