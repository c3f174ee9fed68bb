"""Flow between steps, against the dense sums over a one-hot membership in float64."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from flowtracer.errors import InputError
from flowtracer.flow import MatrixPanels, summarise_edges
from flowtracer.flow.panels import edge_flow_rows
from flowtracer.flow.solve import solve
from flowtracer.flow.steps import StepFlow
from flowtracer.text.span import Span

from graphs import connected_graphs, graphs  # isort: skip


def tiling(lengths):
    ends = np.cumsum(lengths)
    return [Span(start=int(stop - length), stop=int(stop)) for length, stop in zip(lengths, ends, strict=True)]


@st.composite
def tilings(draw, tokens):
    """Spans that tile so many tokens: any number of them, of any lengths."""
    inner = st.sets(st.integers(1, tokens - 1)) if tokens > 1 else st.just(set())
    bounds = [0, *sorted(draw(inner)), tokens]
    return tiling(np.diff(bounds))


def dense(phi_TT, steps):
    """S x S by two products with a one-hot matrix, rows the targets."""
    member_TS = np.zeros((len(phi_TT), len(steps)))
    for step, span in enumerate(steps):
        member_TS[span.start : span.stop, step] = 1
    return member_TS.T @ phi_TT.T @ member_TS


def matrix(edges, within):
    flow_SS = np.diag(within)
    flow_SS[edges.source, edges.target] = edges.flow
    return flow_SS


def solved(graph, panel_rows):
    attention_TT, question_T, answer_T = graph
    source = MatrixPanels(attention_TT[None], panel_rows=panel_rows)
    return source, solve(source, question_T[None], answer_T[None])


@given(graphs(max_tokens=8) | connected_graphs(max_tokens=40), st.integers(1, 45), st.data())
def test_step_flow_is_the_dense_sum_of_token_edges(graph, panel_rows, data):
    source, solution = solved(graph, panel_rows)
    length = len(graph[0])
    steps = data.draw(tilings(length))
    phi_TT = edge_flow_rows(source, solution, 0, length)[0].double().numpy()
    summary = summarise_edges(source, solution, max_edges=3, steps=[steps])[0]
    expected = dense(phi_TT, steps)
    np.testing.assert_allclose(matrix(summary.step_edges, summary.step_within), expected, rtol=1e-12, atol=1e-15)
    assert summary.step_edges.complete
    assert (np.diff(summary.step_edges.flow) <= 0).all()
    assert (summary.step_edges.source < summary.step_edges.target).all()


@given(connected_graphs(max_tokens=30), st.integers(1, 10), st.integers(0, 20))
def test_what_is_kept_of_step_flow_is_the_largest_and_exact(graph, panel_rows, limit):
    source, solution = solved(graph, panel_rows)
    length = len(graph[0])
    steps = tiling([1] * length)
    flows = {n: StepFlow(steps, n) for n in (limit, length**2)}
    for start in range(0, length, panel_rows):
        phi_PC = edge_flow_rows(source, solution, start, min(start + panel_rows, length))[0]
        for flow in flows.values():
            flow.add(phi_PC, start)
    cut, whole = (flow.edges() for flow in flows.values())
    np.testing.assert_array_equal(cut.flow, whole.flow[:limit])
    assert cut.complete == (len(whole) <= limit)
    np.testing.assert_array_equal(*(flow.within for flow in flows.values()))


def test_each_sequence_of_a_batch_has_steps_of_its_own_and_padding_has_none():
    attention_BTT = torch.rand(2, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril() / 20
    question_BT, answer_BT = torch.zeros(2, 2, 20, dtype=torch.bool)
    question_BT[:, :3] = True
    answer_BT[0, 19] = answer_BT[1, 11] = True
    steps = [tiling([3, 9, 5, 3]), tiling([3, 6, 4])]
    source = MatrixPanels(attention_BTT, panel_rows=4)
    solution = solve(source, question_BT, answer_BT)
    for b, summary in enumerate(summarise_edges(source, solution, max_edges=0, steps=steps)):
        phi_TT = edge_flow_rows(source, solution, 0, 20)[b].numpy()
        expected = dense(phi_TT, steps[b])
        np.testing.assert_allclose(matrix(summary.step_edges, summary.step_within), expected, rtol=1e-12)


def test_steps_behind_the_answer_are_there_and_empty():
    attention_TT = torch.rand(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril() / 12
    question_T, answer_T = torch.zeros(2, 12, dtype=torch.bool)
    question_T[0], answer_T[5] = True, True
    source, solution = solved((attention_TT, question_T, answer_T), 4)
    summary = summarise_edges(source, solution, max_edges=9, steps=[tiling([2, 5, 3, 2])])[0]
    assert len(summary.step_within) == 4
    assert not summary.step_within[2:].any()
    assert set(summary.step_edges.target) == {1}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "none"),
        ([Span(start=1, stop=3)], "gaps"),
        ([Span(start=0, stop=3), Span(start=4, stop=5)], "gaps"),
        ([Span(start=0, stop=3), Span(start=2, stop=5)], "overlaps"),
        ([Span(start=0, stop=3), Span(start=3, stop=3)], "empty"),
    ],
)
def test_steps_that_do_not_tile_are_refused(steps, message):
    with pytest.raises(InputError, match=message):
        StepFlow(steps, 10)


class _Largest(TorchDispatchMode):
    """Numbers in the largest tensor that anything made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return made


class _Uniform:
    """Each token attends to all before it alike: rows of a matrix that nobody stores."""

    batch, panel_rows, device = 1, 16, torch.device("cpu")

    def __init__(self, length):
        self.length = length

    def rows(self, start, stop):
        counts_P1 = torch.arange(start, stop, dtype=torch.float64)[:, None] + 1
        return (1 / counts_P1).expand(-1, stop).tril(start - 1)[None]


@pytest.mark.parametrize("length", [2048, 4096])
def test_no_array_is_larger_than_a_panel(length):
    source = _Uniform(length)
    question_1T, answer_1T = torch.zeros(2, 1, length, dtype=torch.bool)
    question_1T[:, 0] = answer_1T[:, -1] = True
    solution = solve(source, question_1T, answer_1T)
    steps = tiling([4] * (length // 4))  # S x S is eight panels and more
    with _Largest() as largest:
        tracemalloc.start()
        summarise_edges(source, solution, max_edges=10, steps=[steps], max_step_edges=10)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert largest.numel <= source.panel_rows * length
    assert peak < 8 * source.panel_rows * length  # numpy's share, in bytes
