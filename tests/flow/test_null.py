"""Flow by place alone: averages by distance, the matrix made of them, and what flows in it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.flow import MatrixPanels
from flowtracer.flow.null import DistanceMeans, DistancePanels, expected_flow
from flowtracer.flow.solve import solve
from tensor_memory import peak_tensor_bytes
from tolerances import assert_close


def masks(length, question, answers):
    """Question and answer of a batch; the answer is one token, another in every sequence."""
    question_BT, answer_BT = torch.zeros(2, len(answers), length, dtype=torch.bool)
    question_BT[:, :question] = True
    for row, answer in enumerate(answers):
        answer_BT[row, answer] = True
    return question_BT, answer_BT


def attention(length, batch=1, seed=0):
    weights = torch.rand(batch, length, length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (weights / weights.tril(-1).sum(-1, keepdim=True).clamp_min(1e-9)).tril(-1)


def averaged(attention_TT, last):
    """The null model's matrix as its definition reads: one mean a distance, and one for the first token."""
    matrix_TT = torch.zeros_like(attention_TT)
    for k in range(1, last + 1):
        for i in range(k):
            pairs = [(k, 0) for k in range(1, last + 1)]
            if i > 0:
                pairs = [(j + k - i, j) for j in range(1, last + 1 - (k - i))]
            matrix_TT[k, i] = sum(float(attention_TT[pair]) for pair in pairs) / len(pairs)
    return matrix_TT


@given(st.integers(1, 13), st.integers(3, 12), st.integers(0, 99))
def test_it_is_the_reference_over_the_averaged_matrix(panel_rows, length, seed):
    attention_BTT = attention(length, batch=2, seed=seed)
    attention_BTT[1, length - 1] = 7.0  # behind the answer of the second nothing counts, padding least of all
    answers = (length - 1, length - 2)
    question_BT, answer_BT = masks(length, 1, answers)
    means = DistanceMeans(MatrixPanels(attention_BTT, panel_rows=panel_rows), answer_BT)
    solution = solve(means, question_BT, answer_BT)
    found_BT = expected_flow(means.kernel_BT, solution)
    for row, answer in enumerate(answers):
        matrix_TT = averaged(attention_BTT[row], answer)
        made_TT = DistancePanels(means.kernel_BT).rows(0, length)[row]
        assert_close(made_TT[: answer + 1, : answer + 1], matrix_TT[: answer + 1, : answer + 1])
        alone = solve(
            MatrixPanels(matrix_TT[None]), question_BT[row, None], answer_BT[row, None], implementation="reference"
        )
        assert_close(found_BT[row], alone.flow_BT[0])


def test_reading_it_changes_nothing_and_a_panel_counts_once():
    attention_BTT = attention(40)
    source, (question_BT, answer_BT) = MatrixPanels(attention_BTT, panel_rows=7), masks(40, 5, (39,))
    means = DistanceMeans(source, answer_BT)
    solution = solve(means, question_BT, answer_BT)
    assert torch.equal(solution.flow_BT, solve(source, question_BT, answer_BT).flow_BT)
    once_BT = means.kernel_BT
    means.rows(7, 14)
    assert torch.equal(means.kernel_BT, once_BT)


def test_attention_that_knows_only_distance_carries_what_is_expected_of_it():
    kernel_BT = torch.from_numpy(np.random.default_rng(0).random((1, 30)) / 30)
    question_BT, answer_BT = masks(30, 6, (29,))
    means = DistanceMeans(DistancePanels(kernel_BT), answer_BT)
    solution = solve(means, question_BT, answer_BT)
    assert_close(means.kernel_BT[:, :29], kernel_BT[:, :29])  # distance 29 is the first token alone
    assert_close(expected_flow(means.kernel_BT, solution), solution.flow_BT)
    assert float(expected_flow(means.kernel_BT, solution)[answer_BT].sum()) == pytest.approx(1)


def test_no_matrix_is_made():
    length = 2048
    kernel_BT = torch.full((1, length), 1 / length, dtype=torch.float64)
    question_BT, answer_BT = masks(length, 9, (length - 1,))
    solution = solve(DistancePanels(kernel_BT), question_BT, answer_BT)
    peak = peak_tensor_bytes(lambda: expected_flow(kernel_BT, solution))
    panel = 8 * length * DistancePanels(kernel_BT).panel_rows
    assert panel < peak < 6 * panel < 8 * length**2 / 2
