"""Signals of attention by hand, and by band of nano's layers."""

import pytest
import torch

from flowtracer.checks.planted.bands import (
    ATTENTION_SIGNALS,
    CONTROLS,
    BandJudge,
    Reading,
    flow_to_prediction,
    flow_to_token,
    from_prediction,
    from_token,
    layer_bands,
    received,
)
from flowtracer.checks.planted.cases import work_case
from flowtracer.model.load import load_model
from flowtracer.tasks import Planted


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


def test_every_signal_is_judged_in_every_band():
    model, tokenizer = load_model("nano")
    task = Planted()
    case = work_case(tokenizer, task, task.problems("test", 1)[0])
    found = BandJudge(model).judge(case)
    expected = {(name, band) for name in ATTENTION_SIGNALS for band in layer_bands(6)}
    assert {(key.name, key.band) for key in found} == expected | {(name, "") for name in CONTROLS}
    assert all(0 <= value <= 1 for one in found.values() for value in (one.steps, one.step_means, one.tokens))
