"""Numbers at their ends: the smallest and largest of every type, exact zeros and ones, ties, the shortest texts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flowtracer as ft
from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.credit import credit_factors
from flowtracer.credit.base import ranks
from flowtracer.errors import InputError
from flowtracer.flow import MatrixPanels, summarise_edges
from flowtracer.flow.solve import SOLVERS, solve
from tensor_memory import peak_tensor_bytes
from tolerances import assert_close

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
every_type = pytest.mark.parametrize("dtype", TYPES, ids=[str(dtype).split(".")[1] for dtype in TYPES])


def ends(length, question=1):
    """Masks of the first tokens as the question and the last token as the answer."""
    place_T = torch.arange(length)
    return place_T < question, place_T == length - 1


def least(dtype):
    """The smallest number above zero, below what the type counts as normal."""
    return float(torch.nextafter(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype)))


@every_type
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(2, 12))
def test_solvers_agree_on_the_ends_of_a_types_range(dtype, seed, panel_rows, length):
    generator = torch.Generator().manual_seed(seed)
    info = torch.finfo(dtype)
    # Of float64 the reference, plain float64 itself, loses what is below its range.
    small = 1e-20 if dtype in (torch.float32, torch.bfloat16, torch.float64) else least(dtype)
    sizes = torch.tensor([0.0, 0.0, 1.0, 0.5, info.eps, small], dtype=dtype)
    attention_TT = sizes[torch.randint(len(sizes), (length, length), generator=generator)].tril(-1)
    attention_TT[-1, 0] = 1.0
    masks = [mask_T[None] for mask_T in ends(length, question=2)]
    source = MatrixPanels(attention_TT[None], panel_rows=panel_rows)
    found, expected = (solve(source, *masks, implementation=name) for name in ("panels", "reference"))
    assert_close(found.flow_BT, expected.flow_BT)
    assert_close(found.reach_BT, expected.reach_BT)
    assert_close(found.flow_BT[0, -1], 1.0)


@every_type
def test_the_least_weight_of_a_type_carries_a_whole_unit(dtype):
    weight = least(dtype) if dtype != torch.float64 else torch.finfo(dtype).tiny  # sweeps are in float64
    attention_TT = torch.zeros(50, 50, dtype=dtype)
    attention_TT[torch.arange(1, 50), torch.arange(49)] = weight
    result = ft.compute_flow(attention_TT, *ends(50))
    assert_close(result.flow_T, torch.ones(50))
    assert_close(result.top_edges(99).flow, torch.ones(49))
    assert result.paths(1)[0].tokens == tuple(range(50))


@every_type
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0])
def test_what_is_no_weight_is_refused_in_every_type(dtype, value):
    attention_TT = torch.full((6, 6), 0.125, dtype=dtype)
    attention_TT[4, 2] = value
    with pytest.raises(InputError, match="finite and not negative"):
        ft.compute_flow(attention_TT, *ends(6))
    above_TT = torch.full((6, 6), 0.125, dtype=dtype).fill_diagonal_(value)
    above_TT[2, 4] = value
    assert ft.compute_flow(above_TT, *ends(6)).flow_T.isfinite().all(), "the diagonal and above are not read"


@pytest.mark.parametrize("weight", [1e30, 1e300])
@pytest.mark.parametrize("implementation", sorted(SOLVERS))
def test_weights_far_above_one_are_solved_or_refused_but_never_nan(weight, implementation):
    attention_TT = torch.zeros(40, 40, dtype=torch.float64)
    attention_TT[torch.arange(1, 40), torch.arange(39)] = weight
    with pytest.raises(InputError, match="rows that sum to at most 1"):
        ft.compute_flow(attention_TT, *ends(40), implementation=implementation)


@pytest.mark.parametrize("implementation", sorted(SOLVERS))
@given(seed=st.integers(0, 2**32), length=st.integers(2, 40), question=st.integers(1, 5))
def test_attention_of_zeros_and_ones_is_one_walk(implementation, seed, length, question):
    question = min(question, length - 1)
    generator = torch.Generator().manual_seed(seed)
    attends = [int(torch.randint(token, (1,), generator=generator)) if token else 0 for token in range(length)]
    attention_TT = torch.zeros(length, length, dtype=torch.float16)
    attention_TT[torch.arange(length), attends] = 1.0
    walk = [length - 1]
    while walk[-1] > 0:
        walk.append(attends[walk[-1]])
    entries = [token for token in walk if token < question]
    expected_T = torch.zeros(length, dtype=torch.float64)
    for token in walk:
        expected_T[token] = sum(entry <= token for entry in entries) / len(entries)
    result = ft.compute_flow(attention_TT, *ends(length, question), implementation=implementation)
    assert_close(result.flow_T, expected_T)


@pytest.mark.parametrize("implementation", sorted(SOLVERS))
def test_the_shortest_texts(implementation):
    one = torch.ones(1, dtype=torch.bool)
    alone = ft.compute_flow(torch.ones(1, 1), one, one, implementation=implementation)
    assert (alone.reach_T.tolist(), alone.flow_T.tolist(), alone.throughput_T.tolist()) == ([1.0], [1.0], [1.0])
    assert (len(alone.top_edges(5)), alone.paths(1)[0].tokens) == (0, (0,))
    two = ft.compute_flow(torch.full((2, 2), 0.25), *ends(2), implementation=implementation)
    assert (two.flow_T.tolist(), two.edge_flow(0, 1)) == ([1.0, 1.0], 1.0)


def test_rows_that_may_attend_to_nothing_are_dead_ends():
    query, key = torch.randn(1, 2, 9, 4), torch.randn(1, 1, 9, 4)
    allowed = torch.ones(9, 9, dtype=torch.bool).tril()[None, None].clone()
    allowed[..., 3:6, :] = False
    panels = AttentionPanels([LayerAttention(layer=0, query_BHTD=query, key_BKTD=key, scale=0.5, mask=allowed)])
    masks = [mask_T[None] for mask_T in ends(9, question=2)]
    solution = solve(panels, *masks)
    assert bool(solution.finite_B[0])
    assert_close(solution.flow_BT, solve(panels, *masks, implementation="reference").flow_BT, torch.float32)
    assert not solution.flow_BT[0, 3:6].any()
    allowed[..., 8, :] = False
    nothing = AttentionPanels([LayerAttention(layer=0, query_BHTD=query, key_BKTD=key, scale=0.5, mask=allowed)])
    solution = solve(nothing, *masks)
    assert (bool(solution.finite_B[0]), bool(solution.connected_B[0])) == (True, False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("share", [1.0, 2**-20])
def test_a_row_of_the_largest_queries_is_attention_or_visibly_none(dtype, share):
    largest = torch.finfo(dtype).max * share
    query, key = torch.randn(1, 2, 12, 4), torch.randn(1, 2, 12, 4).sign()
    query[0, :, 6:9] = largest
    layer = LayerAttention(layer=0, query_BHTD=query.to(dtype), key_BKTD=key.to(dtype), scale=0.5, mask=None)
    weights = layer.weights(0, 12)
    assert_close(weights[:, :, :6].sum(-1), torch.ones(1, 2, 6), torch.float32)
    sums = weights[:, :, 6:9].sum(-1)
    assert bool((sums.isnan() | ((sums - 1).abs() < 1e-5)).all())
    finite = bool(weights.isfinite().all())
    solution = solve(AttentionPanels([layer]), *(mask_T[None] for mask_T in ends(12)))
    assert bool(solution.finite_B[0]) == finite == bool(solution.flow_BT.isfinite().all())


# Ties


class Alike:
    """Identical scores: each token attends to all tokens up to itself alike. No matrix is stored."""

    batch, device = 1, torch.device("cpu")

    def __init__(self, length, panel_rows):
        self.length, self.panel_rows = length, panel_rows

    def rows(self, start, stop):
        shares_P1 = 1 / torch.arange(start + 1, stop + 1, dtype=torch.float32)[:, None]
        return shares_P1.expand(-1, stop).tril(start - 1)[None]


def test_identical_scores_have_a_closed_form_and_need_no_matrix():
    peaks = []
    for length in (2048, 4096):
        masks = [mask_T[None] for mask_T in ends(length)]
        kept = []
        peaks.append(peak_tensor_bytes(lambda m=masks, n=length, k=kept: k.append(solve(Alike(n, 32), *m))))
        # h(i) = sum over k > i of h(k) / (k + 1), from h = 1 at the last, telescopes.
        expected_T = 1 / (torch.arange(length, dtype=torch.float64) + 2)
        expected_T[-1] = 1.0
        assert_close(kept[0].reach_BT[0], expected_T, torch.float32)
        assert_close(kept[0].flow_BT[0, -1], 1.0, torch.float32)
    assert peaks[1] < 2.2 * peaks[0], "memory grows with the length, not with its square"


def test_edges_that_tie_are_the_same_whatever_the_panels():
    masks = [mask_T[None] for mask_T in ends(60)]
    found = []
    for panel_rows in (7, 16, 60):
        source = Alike(60, panel_rows)
        edges = summarise_edges(source, solve(source, *masks), max_edges=1770)[0].edges
        order = sorted(zip((-edges.flow).round(12).tolist(), edges.source.tolist(), edges.target.tolist(), strict=True))
        found.append(order)
        assert len(edges) == 1770
    assert found[0] == found[1] == found[2]


def boosts(throughput_BR, mask_BR):
    return credit_factors("flow", mask_BR, throughput_BR=throughput_BR)


def test_of_128k_equal_scores_the_earliest_are_boosted_in_memory_that_grows_with_them():
    peaks = []
    for length in (1 << 16, 1 << 17):
        scores_1R, mask_1R = torch.full((1, length), 0.25), torch.ones(1, length, dtype=torch.bool)
        kept = []
        peaks.append(peak_tensor_bytes(lambda s=scores_1R, m=mask_1R, k=kept: k.append(boosts(s, m))))
        boosted = int(-(-length * 4 // 10))
        assert kept[0][0, :boosted].eq(1.5).all()
        assert kept[0][0, boosted:].eq(1.0).all()
        assert torch.equal(ranks(scores_1R, mask_1R)[0], torch.arange(length))
    assert peaks[1] <= 2.1 * peaks[0]
