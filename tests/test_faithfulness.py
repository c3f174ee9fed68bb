"""Signals against planted truth."""

import numpy as np
import pytest
import torch

from flowtracer.errors import InputError
from flowtracer.faithfulness import (
    ATTENTION_SIGNALS,
    CONTROLS,
    Reading,
    auroc,
    faithfulness,
    flow_to_prediction,
    flow_to_token,
    from_prediction,
    from_token,
    layer_bands,
    received,
)
from flowtracer.models import load_model
from flowtracer.tasks import Planted
from tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("needed", "distractors", "expected"),
    [([3, 2], [1, 0], 1.0), ([0], [1, 2], 0.0), ([1, 1], [1], 0.5), ([2, 0], [1], 0.5), ([2, 1], [1, 0], 0.875)],
)
def test_auroc_by_hand(needed, distractors, expected):
    assert auroc(np.array(needed), np.array(distractors)) == expected


def test_signals_by_hand():
    # Question 0; 3 is the answer and attends to 2, which attends to 0; 1 is off the path.
    attention_TT = torch.tensor([[0, 0, 0, 0], [0.5, 0, 0, 0], [0.4, 0.0, 0, 0], [0.1, 0.0, 0.6, 0.0]])
    reading = Reading(
        attention_TT=attention_TT,
        question_T=torch.tensor([True, False, False, False]),
        answer_T=torch.tensor([False, False, False, True]),
        seed=0,
    )
    through_2 = 0.4 * 0.6 / (0.4 * 0.6 + 0.1)
    assert flow_to_token(reading)[1:3].tolist() == pytest.approx([0.0, 2 * through_2])
    assert flow_to_prediction(reading)[1:3].tolist() == pytest.approx([0.0, 1.0])
    assert received(reading).tolist() == pytest.approx([1.0, 0.0, 0.6, 0.0])
    assert from_token(reading).tolist() == pytest.approx([0.1, 0.0, 0.6, 0.0])
    assert from_prediction(reading).tolist() == pytest.approx([0.4, 0.0, 0.0, 0.0])


def test_bands_tile_the_layers():
    for layers in (3, 6, 30, 36):
        bands = layer_bands(layers)
        assert [*bands["early"], *bands["middle"], *bands["late"]] == list(bands["all"]) == list(range(layers))
    assert list(layer_bands(36)["middle"]) == list(range(12, 24))


def test_nano_on_planted_problems():
    model, tokenizer = load_model("nano")
    task = Planted(chains=2, length=3)
    seen = []
    result = faithfulness(model, tokenizer, task, task.problems("test", 30), on_problem=lambda: seen.append(1))
    assert len(seen) == result.problems == 30
    assert 0 < result.right <= 30
    keys = {(name, band) for name in ATTENTION_SIGNALS for band in layer_bands(6)} | {
        (name, "none") for name in CONTROLS
    }
    assert set(result.auroc) == keys
    assert all(0 <= estimate.low <= estimate.mean <= estimate.high <= 1 for estimate in result.auroc.values())
    assert all(estimate.items == result.right for estimate in result.auroc.values())


def test_a_model_that_solves_nothing():
    task = Planted(chains=2, length=2)
    with pytest.raises(InputError, match="none right"):
        faithfulness(tiny_model(), tiny_tokenizer(), task, task.problems("test", 3))
