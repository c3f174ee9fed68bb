"""What single heads give to the flow, against sums written out over whole matrices."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.flow import HeadPanelSource, MatrixPanels, summarise_edges, summarise_heads
from flowtracer.flow.solve import solve
from tolerances import assert_close

from graphs import graphs  # isort: skip


class StoredHeads:
    """Groups of heads as whole matrices."""

    def __init__(self, groups, panel_rows):
        self._groups, self.panel_rows = groups, panel_rows
        self.head_counts = tuple(group.shape[1] for group in groups)

    def head_rows(self, start, stop):
        return (group[:, :, start:stop, :stop] for group in self._groups)


def split_among_heads(attention_TT, counts, seed):
    """Heads whose mean is the matrix below its diagonal; above it they hold noise."""
    rng = torch.Generator().manual_seed(seed)
    shares = torch.rand(sum(counts), *attention_TT.shape, generator=rng, dtype=attention_TT.dtype)
    heads = shares / shares.sum(0) * attention_TT * len(shares) + torch.rand(attention_TT.shape).double().triu()
    return [group[None] for group in heads.split(list(counts))]


@given(
    graph=graphs(max_tokens=12),
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    panel_rows=st.integers(1, 13),
    limit=st.sampled_from([3, 1000]),
    named=st.integers(1, 5),
)
def test_shares_and_flow_by_head(graph, counts, panel_rows, limit, named):
    attention_TT, question_T, answer_T = graph
    groups = split_among_heads(attention_TT, counts, seed=0)
    source = StoredHeads(groups, panel_rows)
    assert isinstance(source, HeadPanelSource)
    panels = MatrixPanels(attention_TT[None], panel_rows=3)
    solution = solve(panels, question_T[None], answer_T[None])
    every = summarise_edges(panels, solution, max_edges=1000)[0].edges
    kept = every.top(limit)
    got = summarise_heads(source, solution, [kept], heads_per_edge=named)[0]

    heads = torch.cat(groups, 1)[0].numpy()
    share = heads[:, every.target, every.source] / heads[:, every.target, every.source].sum(0)
    assert_close(np.concatenate(got.head_flow), (share * every.flow).sum(1))
    assert sum(flow.sum() for flow in got.head_flow) == pytest.approx(every.flow.sum())
    expected = -np.sort(-share[:, : len(kept)], 0)[:named].T
    np.testing.assert_allclose(got.edge_head_shares, expected, rtol=1e-5)
    assert got.edge_heads.shape == (len(kept), min(named, sum(counts)), 2)
    flat = np.cumsum([0, *counts])[got.edge_heads[..., 0]] + got.edge_heads[..., 1]
    np.testing.assert_allclose(share[flat, np.arange(len(kept))[:, None]], expected, rtol=1e-5)


def test_reach_below_any_float():
    """A chain of weak links carries the whole unit on every link, whoever of two heads pays for it."""
    tokens = 400
    chain_TT = torch.diag(torch.full((tokens - 1,), 1e-3, dtype=torch.float64), -1)
    ends = torch.zeros(2, tokens, dtype=torch.bool)
    ends[0, 0] = ends[1, -1] = True
    panels = MatrixPanels(chain_TT[None])
    solution = solve(panels, ends[:1], ends[1:])
    edges = summarise_edges(panels, solution, max_edges=1000)[0].edges
    heads = torch.stack([1.5 * chain_TT, 0.5 * chain_TT])[None]
    got = summarise_heads(StoredHeads([heads], 64), solution, [edges], heads_per_edge=1)[0]
    np.testing.assert_allclose(got.edge_head_shares, 0.75, rtol=1e-6)
    assert not got.edge_heads.any()
    np.testing.assert_allclose(got.head_flow[0], [0.75 * (tokens - 1), 0.25 * (tokens - 1)], rtol=1e-9)


def test_sequences_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    heads = torch.rand(2, 3, 9, 9, dtype=torch.float64).tril(-1) / 9
    heads[1] = torch.nan
    question, answer = torch.zeros(2, 2, 9, dtype=torch.bool)
    question[:, :2] = answer[:, 7] = True
    panels = MatrixPanels(heads.mean(1))
    solution = solve(panels, question, answer)
    edges = [summary.edges for summary in summarise_edges(panels, solution, max_edges=50)]
    first = summarise_heads(StoredHeads([heads], 4), solution, edges)[0]
    alone = MatrixPanels(heads[:1].mean(1))
    alone_solution = solve(alone, question[:1], answer[:1])
    assert_close(
        first.head_flow[0], summarise_heads(StoredHeads([heads[:1]], 4), alone_solution, edges[:1])[0].head_flow[0]
    )
    assert np.isfinite(first.edge_head_shares).all()
