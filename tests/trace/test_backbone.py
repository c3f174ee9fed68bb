"""Backbone, paths and shares against all paths, one by one."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flow.graphs import connected_graphs, graphs
from flow.oracle import Oracle
from flowtracer.errors import InputError
from flowtracer.flow import MatrixPanels, summarise_edges, token_graph
from flowtracer.flow.solve import solve
from flowtracer.trace.backbone import Edges, TokenGraph, backbone, best_paths, gathers, kept_share, share_through
from tolerances import assert_close


def build(graph, max_edges=10_000):
    attention_TT, question_T, answer_T = graph
    source = MatrixPanels(attention_TT[None])
    solution = solve(source, question_T[None], answer_T[None])
    assume(bool(solution.connected_B[0]))
    oracle = Oracle(
        attention_TT.tolist(), question_T.nonzero().flatten().tolist(), answer_T.nonzero().flatten().tolist()
    )
    return token_graph(solution, 0, summarise_edges(source, solution, max_edges=max_edges)[0].edges), oracle


@given(graphs(), st.floats(0.05, 1))
def test_backbone_is_the_shortest_prefix_with_the_share(graph, share):
    tokens, oracle = build(graph)
    found = backbone(tokens, share)
    pairs = list(zip(tokens.edges.source, tokens.edges.target, strict=True))
    shares = [float(oracle.kept_share(set(pairs[:n]))) for n in range(len(pairs) + 1)]
    for n, expected in enumerate(shares):
        assert_close(kept_share(tokens, n), expected)
    assert shares == sorted(shares)
    n = len(found.edges)
    assert_close(found.share, shares[n])
    assert found.share >= share - 1e-6
    assert n == 0 or shares[n - 1] < share - 1e-6 + 1e-9


@given(graphs(), st.integers(1, 12))
def test_best_paths_are_the_most_probable_of_all(graph, k):
    tokens, oracle = build(graph)
    found = best_paths(tokens, k)
    probability_of = dict(oracle.paths)
    assert len({path.tokens for path in found}) == len(found) == min(k, len(oracle.paths))
    assert all(path.exact for path in found)
    assert_close([path.share for path in found], [float(p) for p in oracle.best_paths()[:k]])
    for path in found:
        assert_close(path.share, float(probability_of[path.tokens]))


@given(connected_graphs(max_tokens=8), st.integers(1, 10), st.integers(1, 20))
def test_a_path_that_is_called_exact_is_exact_in_the_whole_graph(graph, k, kept):
    tokens, oracle = build(graph, max_edges=kept)
    best = [float(p) for p in oracle.best_paths()]
    for rank, path in enumerate(best_paths(tokens, k)):
        assert path.share <= best[rank] + 1e-12
        if path.exact:
            assert_close(path.share, best[rank])


@given(graphs(), st.data())
def test_share_through_tokens(graph, data):
    tokens, oracle = build(graph)
    chosen = data.draw(st.lists(st.integers(0, len(tokens.flow) - 1), unique=True, max_size=4))
    assert_close(share_through(tokens, chosen), float(oracle.share_through(chosen)))


@given(connected_graphs(max_tokens=8), st.integers(1, 15), st.data())
def test_with_edges_cut_the_share_through_tokens_is_a_lower_bound(graph, kept, data):
    tokens, oracle = build(graph, max_edges=kept)
    chosen = data.draw(st.lists(st.integers(0, len(tokens.flow) - 1), unique=True, max_size=4))
    assert share_through(tokens, chosen) <= float(oracle.share_through(chosen)) + 1e-12


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    edges = Edges(source=np.array([0]), target=np.array([1]), flow=np.ones(1), complete=True)
    graph = TokenGraph(edges=edges, flow=np.ones(2), source=np.array([1.0, 0]), sink=np.array([False, True]))
    assert backbone(graph, 1.0).share == 1
    with pytest.raises(InputError, match="share of the flow"):
        backbone(graph, share)


def test_who_gathers_is_said_by_ranks_among_those_that_carry():
    fan_in, fan_out = np.array([10.0, 30, 20, 99, 99]), np.array([3.0, 1, 2, 99, 99])
    assert gathers(fan_in, fan_out, np.array([0, 1, 2])).tolist() == [False, True, True]
