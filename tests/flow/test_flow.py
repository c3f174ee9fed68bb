"""Golden cases, an oracle over all paths, and every fact of docs/method.md as a property."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import flowtracer as ft
from flowtracer.errors import InputError
from flowtracer.flow import CachedPanels, MatrixPanels, summarise_edges
from flowtracer.flow.edges import MAX_EDGES
from flowtracer.flow.solve import SOLVERS, solve
from tolerances import assert_close

from graphs import connected_graphs, graphs  # isort: skip
from oracle import Oracle  # isort: skip

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
implementations = pytest.mark.parametrize("implementation", sorted(SOLVERS))


def mask(length, indices):
    out = torch.zeros(length, dtype=torch.bool)
    out[list(indices)] = True
    return out


def oracle_of(attention_TT, question_T, answer_T):
    return Oracle(attention_TT.tolist(), question_T.nonzero().flatten().tolist(), answer_T.nonzero().flatten().tolist())


def solve_one(attention_TT, question_T, answer_T, *, panel_rows=3, implementation="panels"):
    source = MatrixPanels(attention_TT[None], panel_rows=panel_rows)
    return solve(source, question_T[None], answer_T[None], implementation=implementation)


class Recomputed:
    """A source that stores nothing: rows are cut anew each time they are asked for, and counted."""

    def __init__(self, attention_BTT, panel_rows):
        self._inner = MatrixPanels(attention_BTT, panel_rows=panel_rows)
        self.panel_rows, self.batch, self.length = panel_rows, self._inner.batch, self._inner.length
        self.device = self._inner.device
        self.asked = []

    def rows(self, start, stop):
        self.asked.append((start, stop))
        return self._inner.rows(start, stop).clone()


# Against exact numbers


@implementations
@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden(case, implementation):
    attention_TT = torch.tensor(case["attention"], dtype=torch.float64)
    masks = [mask(len(attention_TT), case[name]) for name in ("question", "answer")]
    result = ft.compute_flow(attention_TT, *masks, implementation=implementation)
    assert_close(result.reach_T, case["reach"])
    assert_close(result.flow_T, case["flow"])
    assert_close(result.throughput_T, case["throughput"])
    edges = result.top_edges(100)
    assert len(edges) == len(case["edges"])
    for i, k, flow in case["edges"]:
        assert_close(result.edge_flow(i, k), flow)
    best = result.paths(1)[0]
    assert (list(best.tokens), best.exact) == (case["best_path"], True)
    assert_close(best.share, case["best_path_share"])


@implementations
@given(graph=graphs())
def test_all_paths(graph, implementation):
    oracle = oracle_of(*graph)
    solution = solve_one(*graph, implementation=implementation)
    assert_close(solution.reach_BT[0], [float(h) for h in oracle.reach])
    assert_close(solution.flow_BT[0], [float(f) for f in oracle.flow])
    assert_close(solution.source_BT[0], [float(s) for s in oracle.source])
    assert bool(solution.connected_B[0]) == bool(oracle.paths)
    assert bool(solution.finite_B[0])


@given(graphs())
def test_edges_and_fans_of_all_paths(graph):
    attention_TT, _, answer_T = graph
    oracle, expected = oracle_of(*graph), oracle_of(*graph).edges()
    source = MatrixPanels(attention_TT[None], panel_rows=3)
    solution = solve_one(*graph)
    summary = summarise_edges(source, solution, max_edges=100)[0]
    got = dict(zip(zip(summary.edges.source, summary.edges.target, strict=True), summary.edges.flow, strict=True))
    assert set(got) == set(expected)
    assert summary.edges.complete
    assert (np.diff(summary.edges.flow) <= 0).all()
    for pair, flow in expected.items():
        assert_close(got[pair], float(flow))
    for t in range(len(answer_T)):
        assert_close(summary.fan_in[t], oracle.fan([f for (_, k), f in expected.items() if k == t]))
        assert_close(summary.fan_out[t], oracle.fan([f for (i, _), f in expected.items() if i == t]))


# One algorithm, whatever its source


@given(connected_graphs(), st.integers(1, 50), st.sampled_from([torch.float64, torch.float32]))
def test_reference_stored_and_streamed_agree(graph, panel_rows, dtype):
    attention_TT, question_T, answer_T = graph
    reference = solve_one(*graph, implementation="reference")
    attention_TT = attention_TT.to(dtype)
    streamed = Recomputed(attention_TT[None], panel_rows)
    cached = CachedPanels(Recomputed(attention_TT[None], panel_rows))
    for source in (MatrixPanels(attention_TT[None], panel_rows=panel_rows), streamed, cached):
        solution = solve(source, question_T[None], answer_T[None])
        assert_close(solution.reach_BT, reference.reach_BT, dtype)
        assert_close(solution.flow_BT, reference.flow_BT, dtype)


@given(st.lists(connected_graphs(max_tokens=20), min_size=1, max_size=4), st.integers(1, 25))
def test_a_batch_is_each_of_its_sequences(batch, panel_rows):
    length = max(len(question_T) for _, question_T, _ in batch)

    def padded(x, ndim):
        return torch.nn.functional.pad(x, (0, length - len(x)) * ndim)

    attention_BTT = torch.stack([padded(a, 2) for a, _, _ in batch])
    question_BT, answer_BT = (torch.stack([padded(graph[n], 1) for graph in batch]) for n in (1, 2))
    together = solve(MatrixPanels(attention_BTT, panel_rows=panel_rows), question_BT, answer_BT)
    for row, graph in enumerate(batch):
        alone = solve_one(*graph)
        size = len(graph[1])
        assert_close(together.reach_BT[row, :size], alone.reach_BT[0])
        assert_close(together.flow_BT[row, :size], alone.flow_BT[0])
        assert not together.flow_BT[row, size:].any()


def test_twins_have_one_signature():
    signatures = {str(inspect.signature(solver)) for solver in SOLVERS.values()}
    assert len(signatures) == 1


def test_rows_after_the_answer_are_never_asked_for_and_a_cache_asks_once():
    attention_TT = torch.rand(50, 50).tril()
    source = Recomputed(attention_TT[None], 7)
    cached = CachedPanels(source)
    solution = solve(cached, mask(50, range(5))[None], mask(50, [20, 21])[None])
    summarise_edges(cached, solution, max_edges=10)
    assert max(stop for _, stop in source.asked) == 22
    assert len(source.asked) == len(set(source.asked))


# Theorems


@given(connected_graphs())
def test_reach_is_between_0_and_the_number_of_answer_tokens(graph):
    reach_T = solve_one(*graph).reach_BT[0]
    assert (reach_T >= 0).all()
    assert (reach_T <= int(graph[2].sum()) + 1e-9).all()


@given(graphs())
def test_conditioned_capacities_sum_to_one(graph):
    attention_TT, _, answer_T = graph
    reach_T = solve_one(*graph).reach_BT[0]
    conditioned_TT = attention_TT.tril(-1) * reach_T[:, None] / reach_T
    for i in ((reach_T > 0) & ~answer_T).nonzero().flatten():
        assert_close(conditioned_TT[:, i].sum(), 1.0)


@given(connected_graphs())
def test_a_unit_leaves_crosses_every_cut_and_arrives(graph):
    attention_TT, question_T, answer_T = graph
    result = ft.compute_flow(*graph)
    phi_TT = torch.zeros_like(attention_TT)
    edges = result.top_edges(10_000)
    phi_TT[edges.target, edges.source] = torch.from_numpy(edges.flow)
    assert_close(result.flow_T[answer_T].sum(), 1.0)
    last_question, first_answer = int(question_T.nonzero().max()), int(answer_T.nonzero().min())
    for cut in range(last_question + 1, first_answer + 1):
        assert_close(phi_TT[cut:, :cut].sum(), 1.0)
    inner = ~answer_T & (result.flow_T > 0)
    assert_close(phi_TT.sum(0)[inner], result.flow_T[inner])
    assert_close(phi_TT.sum(1) + result.solution.source_BT[0], result.flow_T)
    assert_close(result.throughput_T, result.flow_T + phi_TT.sum(0))
    assert not result.flow_T[int(answer_T.nonzero().max()) + 1 :].any()
    assert not phi_TT[:, answer_T].any(), "answer tokens feed only the sink"


@given(connected_graphs(), st.integers(0, 2**32))
def test_rescaling_that_is_1_on_the_answer_changes_no_flow(graph, seed):
    attention_TT, question_T, answer_T = graph
    generator = torch.Generator().manual_seed(seed)
    scale_T = torch.exp(3 * torch.randn(len(question_T), generator=generator, dtype=torch.float64))
    scale_T[answer_T] = 1.0
    rescaled_TT = attention_TT * scale_T / scale_T[:, None]
    assert_close(solve_one(rescaled_TT, question_T, answer_T).flow_BT, solve_one(*graph).flow_BT)


@given(connected_graphs(), st.data())
def test_a_branch_that_never_reaches_the_answer_changes_nothing(graph, data):
    attention_TT, question_T, answer_T = graph
    length = len(question_T)
    at = data.draw(st.integers(1, length - 1))
    keep = torch.tensor([t for t in range(length + 1) if t != at])
    grown_TT = torch.zeros(length + 1, length + 1, dtype=torch.float64)
    grown_TT[keep[:, None], keep] = attention_TT
    grown_TT[at, :at] = 0.5  # the new token attends to all before it, and nothing attends to it
    grown = [torch.zeros(length + 1, dtype=torch.bool).index_put((keep,), m) for m in (question_T, answer_T)]
    solution = solve_one(grown_TT, *grown)
    expected = solve_one(*graph)
    assert_close(solution.flow_BT[0, keep], expected.flow_BT[0])
    assert_close(solution.reach_BT[0, keep], expected.reach_BT[0])
    assert float(solution.flow_BT[0, at]) == 0


@given(connected_graphs())
def test_factored_form(graph):
    attention_TT, _, answer_T = graph
    result = ft.compute_flow(*graph)
    u_T = result.flow_T / result.reach_T
    for i, k in [(0, 1), (0, len(u_T) - 1), (1, 3)]:
        expected = u_T[i] * attention_TT[k, i] * result.reach_T[k] if not answer_T[i] and result.reach_T[k] > 0 else 0.0
        assert_close(result.edge_flow(i, k), expected)
    assert result.edge_flow(3, 1) == 0.0


@given(connected_graphs())
def test_the_diagonal_and_what_stands_above_it_are_ignored(graph):
    attention_TT, question_T, answer_T = graph
    noisy_TT = attention_TT.tril(-1) + torch.full_like(attention_TT, 7.0).triu()
    assert_close(solve_one(noisy_TT, question_T, answer_T).flow_BT, solve_one(*graph).flow_BT)


# Range


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tokens", "weight"), [(400, 1e-3), (60, 1e-30), (2000, 0.5)])
def test_a_long_chain_of_weak_links_carries_the_whole_flow(tokens, weight, dtype):
    chain_TT = torch.diag(torch.full((tokens - 1,), weight, dtype=dtype), -1)
    result = ft.compute_flow(chain_TT, mask(tokens, [0]), mask(tokens, [tokens - 1]))
    assert_close(result.flow_T, torch.ones(tokens), dtype)
    assert_close(result.solution.log_reach_BT[0, 0] / (tokens - 1), np.log(weight), dtype)
    assert_close(result.edge_flow(tokens // 2, tokens // 2 + 1), 1.0, dtype)
    assert result.paths(1)[0].tokens == tuple(range(tokens))


def test_a_sequence_that_underflows_beside_one_that_does_not():
    tokens = 300
    chain_TT = torch.diag(torch.full((tokens - 1,), 1e-3, dtype=torch.float64), -1)
    easy_TT = torch.rand(tokens, tokens, dtype=torch.float64).tril(-1) / tokens
    question_BT, answer_BT = mask(tokens, [0]).expand(2, -1), mask(tokens, [tokens - 1]).expand(2, -1)
    both = solve(MatrixPanels(torch.stack([chain_TT, easy_TT])), question_BT, answer_BT)
    assert_close(both.flow_BT[0], torch.ones(tokens))
    alone = solve(MatrixPanels(easy_TT[None]), question_BT[:1], answer_BT[:1])
    assert_close(both.log_reach_BT[1], alone.log_reach_BT[0])
    assert_close(both.log_inflow_BT[1], alone.log_inflow_BT[0])


def test_a_weak_detour_beside_a_strong_link_keeps_its_share():
    """Two ways from 0 to the end: one link of weight 1e-300, and a chain whose product is the same."""
    W = torch.zeros(5, 5, dtype=torch.float64)
    W[4, 0] = 1e-300
    for k in range(1, 5):
        W[k, k - 1] = 1e-75
    result = ft.compute_flow(W, mask(5, [0]), mask(5, [4]))
    assert_close(result.flow_T, [1.0, 0.5, 0.5, 0.5, 1.0])


@given(graphs(max_tokens=12), st.floats(1e-200, 1e-60))
def test_scaling_every_weight_keeps_the_paths_of_each_length_in_proportion(graph, scale):
    """Any range of weights agrees with the log-domain truth: reach of a token k links away scales with scale^k."""
    attention_TT, question_T, _ = graph
    chain_TT = torch.diag(attention_TT.diagonal(-1).clamp_min(1e-3), -1)
    last = mask(len(question_T), [len(question_T) - 1])
    first = mask(len(question_T), [0])
    assert_close(solve_one(chain_TT * scale, first, last).flow_BT, torch.ones(1, len(question_T)))


# What cannot be solved


def test_nan_in_one_sequence_leaves_the_others_alone():
    good_TT = torch.rand(20, 20, dtype=torch.float64).tril() / 20
    bad_TT = good_TT.clone()
    bad_TT[10, 4] = torch.nan
    question_BT, answer_BT = mask(20, range(4)).expand(2, -1), mask(20, [19]).expand(2, -1)
    solution = solve(MatrixPanels(torch.stack([bad_TT, good_TT])), question_BT, answer_BT)
    assert solution.finite_B.tolist() == [False, True]
    alone = solve(MatrixPanels(good_TT[None]), question_BT[:1], answer_BT[:1])
    assert_close(solution.flow_BT[1], alone.flow_BT[0])


@implementations
def test_a_question_that_reaches_nothing_is_disconnected(implementation):
    W = torch.zeros(1, 4, 4, dtype=torch.float64)
    W[0, 3, 2] = 1.0
    solution = solve(MatrixPanels(W), mask(4, [0])[None], mask(4, [3])[None], implementation=implementation)
    assert not bool(solution.connected_B[0])
    assert not solution.flow_BT.any()
    assert bool(solution.finite_B[0])


def test_a_sequence_without_an_answer_beside_one_with():
    attention_BTT = (torch.rand(2, 6, 6, dtype=torch.float64) / 6).tril()
    answer_BT = torch.stack([mask(6, []), mask(6, [5])])
    solution = solve(MatrixPanels(attention_BTT), mask(6, [0]).expand(2, -1), answer_BT)
    assert solution.connected_B.tolist() == [False, True]
    assert not solution.flow_BT[0].any()


def test_a_results_edges_are_searched_once_and_no_more_than_a_trace_keeps(monkeypatch):
    graph = torch.rand(500, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril() / 500
    result = ft.compute_flow(graph, mask(500, range(9)), mask(500, [499]))
    asked = []

    def counted(panels, solution, *, max_edges):
        asked.append(max_edges)
        return summarise_edges(panels, solution, max_edges=max_edges)

    monkeypatch.setattr("flowtracer.flow.result.summarise_edges", counted)
    paths, backbone = result.paths(2), result.backbone(0.5)
    assert (result.paths(2), len(result.backbone(0.5).edges)) == (paths, len(backbone.edges))
    assert asked == [MAX_EDGES]
    assert backbone.share >= 0.5 - 1e-6
    assert all(path.exact for path in paths)


ROW = torch.full((4, 4), 0.25)


@pytest.mark.parametrize(
    ("attention", "question", "answer", "message"),
    [
        (ROW[:3], mask(4, [0]), mask(4, [3]), r"shape \(T, T\)"),
        (ROW[0], mask(4, [0]), mask(4, [3]), r"shape \(T, T\)"),
        (ROW.long(), mask(4, [0]), mask(4, [3]), "floating point"),
        (-ROW, mask(4, [0]), mask(4, [3]), "negative"),
        (ROW * torch.nan, mask(4, [0]), mask(4, [3]), "NaN"),
        (ROW, mask(3, [0]), mask(4, [3]), r"question mask as 4 booleans.* of shape \(3,\)"),
        (ROW, mask(4, [0]).long(), mask(4, [3]), "question mask as 4 booleans, one a token, got torch.int64"),
        (ROW, mask(4, [0]), mask(4, [3])[None], r"answer mask as 4 booleans.* of shape \(1, 4\)"),
        (ROW, np.array([0]), np.array([3]), r"question mask .* of shape \(1,\); a mask from ind.*zeros\(4, bool\)"),
        (ROW, mask(4, [0]), mask(4, []), "answer token"),
        (ROW, mask(4, []), mask(4, [3]), "question token"),
        (ROW, mask(4, [3]), mask(4, [1]), "question token"),
    ],
)
def test_bad_input_is_refused(attention, question, answer, message):
    with pytest.raises(InputError, match=message):
        ft.compute_flow(attention, question, answer)


def test_unknown_implementation_lists_the_choices():
    with pytest.raises(InputError, match="reference"):
        ft.compute_flow(ROW, mask(4, [0]), mask(4, [3]), implementation="fast")


def test_numpy_and_half_precision_are_taken():
    for attention in (ROW.numpy(), ROW.bfloat16(), ROW.half()):
        result = ft.compute_flow(attention, mask(4, [0]).numpy(), mask(4, [3]))
        assert_close(result.flow_T, ft.compute_flow(ROW, mask(4, [0]), mask(4, [3])).flow_T)


def test_edges_outside_the_sequence_are_refused():
    with pytest.raises(InputError, match=r"within 0\.\.3"):
        ft.compute_flow(ROW, mask(4, [0]), mask(4, [3])).edge_flow(0, 9)


@given(connected_graphs(max_tokens=30), st.integers(1, 40))
def test_edges_that_are_kept_are_the_largest(graph, limit):
    source = MatrixPanels(graph[0][None], panel_rows=7)
    solution = solve_one(*graph)
    whole = summarise_edges(source, solution, max_edges=10_000)[0]
    cut = summarise_edges(source, solution, max_edges=limit)[0]
    assume(len(whole.edges) > 0)
    np.testing.assert_array_equal(cut.edges.flow, whole.edges.flow[:limit])
    assert cut.edges.complete == (len(whole.edges) <= limit)
