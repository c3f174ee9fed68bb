"""Flow over (token, layer): theorems, and every path against the reference that catches walks."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.flow import reference
from flowtracer.flow.layer_panels import CachedLayers, LayerMatrices, layers_within_budget
from flowtracer.flow.layered import layer_edge_flow, solve_layered
from flowtracer.flow.layered_edges import summarise_layered_edges
from flowtracer.flow.panels import MatrixPanels
from flowtracer.flow.solution import LayerPanelSource
from flowtracer.flow.solve import solve
from tolerances import assert_close


@st.composite
def stacks(draw, max_tokens=9, max_layers=4):
    """Layers (L, 2, T, T), sparse or dense, with questions and starts; the two sequences are two draws."""
    length, layers = draw(st.integers(2, max_tokens)), draw(st.integers(1, max_layers))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    matrix = torch.rand(layers, 2, length, length, generator=generator, dtype=torch.float64) ** 3
    matrix *= torch.rand(matrix.shape, generator=generator) < draw(st.sampled_from([0.4, 1.0]))
    matrix += 0.01 * torch.eye(length)
    question = torch.rand(2, length, generator=generator) < 0.4
    question[:, 0] = True
    answer = torch.rand(2, length, generator=generator) < 0.3
    answer[:, -1] = True
    return matrix, question, answer


@given(stacks(), st.sampled_from(["anywhere", "question"]), st.integers(1, 4))
def test_panels_give_what_the_reference_gives(stack, ends, panel_rows):
    matrix, question, answer = stack
    panels = LayerMatrices(matrix, panel_rows=panel_rows)
    expected = reference.solve_layered(panels, question, answer, ends=ends)
    for source in (panels, CachedLayers(panels)):
        assert_close(solve_layered(source, question, answer, ends=ends).flow_BT, expected)


@given(stacks(), st.sampled_from(["anywhere", "question"]))
def test_nothing_is_gained_or_lost(stack, ends):
    matrix, question, answer = stack
    panels = LayerMatrices(matrix, panel_rows=3)
    found = solve_layered(panels, question, answer, ends=ends)
    each_layer = found.layer_flow_NBT
    connected = found.connected_B.double()
    assert_close(each_layer.sum(-1), connected.expand(panels.layers + 1, -1))
    assert_close(found.source_BT.sum(-1), connected)
    if ends == "question":
        assert not found.source_BT[~question].any(), "walks end in the question alone"
    else:
        assert found.connected_B.all()
        assert_close(found.flow_BT, found.visits_BT)
    # What enters a token, on top or from a later one, is what leaves it, to an earlier one or below the first layer.
    edges = sum(layer_edge_flow(panels, found, layer, 0, panels.length)[0] for layer in range(panels.layers))
    assert_close(each_layer[-1] + edges.sum(1), found.flow_BT)
    assert_close(each_layer[0] + edges.sum(2), found.flow_BT)
    for layer in range(panels.layers):
        moved, stayed = layer_edge_flow(panels, found, layer, 0, panels.length)
        assert_close(each_layer[layer + 1], moved.sum(2) + stayed)
        assert_close(each_layer[layer], moved.sum(1) + stayed)
    assert float(found.flow_BT.max()) <= 1 + 1e-12, "a walk is at a token at most once"


@settings(max_examples=20)
@given(stacks(), st.sampled_from(["anywhere", "question"]), st.integers(1, 9))
def test_edges_are_those_of_the_layers(stack, ends, panel_rows):
    matrix, question, answer = stack
    panels = LayerMatrices(matrix, panel_rows=panel_rows)
    found = solve_layered(panels, question, answer, ends=ends)
    numbers = [3 + layer for layer in range(panels.layers)]
    flows = [layer_edge_flow(panels, found, layer, 0, panels.length) for layer in range(panels.layers)]
    for b, (summary, graph) in enumerate(summarise_layered_edges(panels, found, layers=numbers, max_edges=10_000)):
        total = np.zeros((panels.length, panels.length))
        total[summary.edges.target, summary.edges.source] = summary.edges.flow
        assert_close(total, sum(moved for moved, _ in flows)[b])
        places = panels.layers + 1
        nodes = np.zeros((places, panels.length, places, panels.length))
        place, token = np.divmod(np.stack([graph.edges.target, graph.edges.source]), panels.length)
        nodes[place[0], token[0], place[1], token[1]] = graph.edges.flow
        for layer, (moved, stayed) in enumerate(flows):
            assert_close(nodes[layer + 1, :, layer], moved[b] + torch.diag(stayed[b]))
        assert_close(nodes.sum(), torch.tensor(panels.layers * float(found.connected_B[b])))
        # A graph over more tokens is the same graph.
        longer = graph.of_length(panels.length + 3)
        sink = answer[b].numpy()
        if found.connected_B[b]:
            assert [(path.tokens, path.layers) for path in graph.paths(3, sink)] == [
                (path.tokens, path.layers) for path in longer.paths(3, np.pad(sink, (0, 3)))
            ]
            token = int(found.flow_BT[b].argmax())
            assert graph.share_through([token], sink) == pytest.approx(float(found.flow_BT[b, token]))


@given(stacks())
def test_the_last_position_of_one_token_carries_all(stack):
    matrix, question, _ = stack
    answer = torch.zeros_like(question)
    answer[:, -1] = True
    found = solve_layered(LayerMatrices(matrix), question, answer, ends="anywhere")
    assert_close(found.flow_BT[:, -1], torch.ones(2))
    assert_close(found.reach_BT, found.visits_BT)


def test_an_end_that_every_walk_has_changes_nothing():
    matrix = torch.rand(3, 1, 7, 7, dtype=torch.float64)
    answer = torch.zeros(1, 7, dtype=torch.bool)
    answer[0, 5:] = True
    everywhere = torch.ones_like(answer)
    open_, closed = (
        solve_layered(LayerMatrices(matrix), everywhere, answer, ends=ends) for ends in ("anywhere", "question")
    )
    assert_close(open_.flow_BT, closed.flow_BT)


@pytest.mark.parametrize("seed", range(3))
def test_many_equal_layers_are_the_graph_on_tokens(seed):
    """A walk that may stay visits, given time, what one visits that never does: rows without their diagonal."""
    one = torch.rand(1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tril() + 0.2
    question, answer = torch.zeros(2, 1, 6, dtype=torch.bool)
    question[0, 0], answer[0, 5] = True, True
    layered = solve_layered(LayerMatrices(one.expand(400, 1, 6, 6)), question, answer)
    moves = one.tril(-1)
    tokens = solve(MatrixPanels(moves / moves.sum(-1, keepdim=True).clamp_min(1e-300)), question, answer)
    assert_close(layered.flow_BT, tokens.flow_BT)
    assert_close(layered.reach_BT, tokens.reach_BT)


def test_a_walk_worked_by_hand():
    # Two layers of three tokens. From the last token: stays 1/2 or goes to the one before; that one hands on by halves.
    layer = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]], dtype=torch.float64)
    question, answer = torch.tensor([[[True, False, False]], [[False, False, True]]])
    panels = LayerMatrices(torch.stack([layer, layer])[:, None])
    anywhere = solve_layered(panels, question, answer, ends="anywhere")
    assert_close(anywhere.flow_BT[0], torch.tensor([0.25, 0.75, 1.0]))
    closed = solve_layered(panels, question, answer, ends="question")
    assert_close(closed.flow_BT[0], torch.ones(3))  # the only way to token 0 leads through token 1
    assert_close(layer_edge_flow(panels, closed, 1, 0, 3)[0][0, 2, 1], torch.tensor(1.0))
    assert_close(layer_edge_flow(panels, closed, 0, 0, 3)[0][0, 1, 0], torch.tensor(1.0))


def test_a_question_out_of_reach_carries_nothing():
    matrix = torch.eye(4, dtype=torch.float64).expand(2, 1, 4, 4)
    question, answer = torch.tensor([[[True, False, False, False]], [[False, False, False, True]]])
    found = solve_layered(LayerMatrices(matrix), question, answer, ends="question")
    assert not found.connected_B.any()
    assert not found.flow_BT.any()
    assert found.finite_B.all()


def test_nan_is_named_and_leaves_the_other_sequence_alone():
    matrix = torch.rand(2, 2, 5, 5, dtype=torch.float64)
    question, answer = torch.zeros(2, 2, 5, dtype=torch.bool)
    question[:, 0], answer[:, -1] = True, True
    expected = solve_layered(LayerMatrices(matrix), question, answer, ends="question").flow_BT[1]
    matrix[1, 0, 4, 2] = torch.nan
    found = solve_layered(LayerMatrices(matrix), question, answer, ends="question")
    assert found.finite_B.tolist() == [False, True]
    assert_close(found.flow_BT[1], expected)


def test_rows_behind_the_last_start_are_never_asked_for():
    matrix = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    matrix[:, :, 5:] = torch.nan
    question, answer = torch.zeros(2, 1, 8, dtype=torch.bool)
    question[:, 0], answer[:, 4] = True, True
    found = solve_layered(LayerMatrices(matrix, panel_rows=2), question, answer, ends="question")
    assert found.finite_B.all()


def test_kept_within_the_budget():
    panels = LayerMatrices(torch.rand(2, 1, 8, 8))
    assert isinstance(layers_within_budget(panels, 2 * 2 * 64), CachedLayers)
    assert layers_within_budget(panels, 2 * 2 * 64 - 1) is panels
    assert isinstance(panels, LayerPanelSource)


def test_twins_take_the_same():
    names = [list(inspect.signature(twin).parameters) for twin in (solve_layered, reference.solve_layered)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": "nowhere"}, "ends among"),
        ({"question_BT": torch.ones(1, 3)}, "question mask"),
        ({"answer_BT": torch.zeros(1, 4, dtype=torch.bool)}, "expected an answer"),
    ],
)
def test_what_is_refused(change, message):
    masks = {"question_BT": torch.ones(1, 4, dtype=torch.bool), "answer_BT": torch.ones(1, 4, dtype=torch.bool)}
    with pytest.raises(InputError, match=message):
        solve_layered(LayerMatrices(torch.rand(2, 1, 4, 4)), **{"ends": "anywhere", **masks, **change})
