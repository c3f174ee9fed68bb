"""Scores of attention from row panels against the same scores from whole maps, written as the papers do."""

import math

import pytest
import torch

from flowtracer.attention.panels import AttentionPanels
from flowtracer.errors import InputError
from flowtracer.model.capture import AttentionReader
from flowtracer.signals import heads
from flowtracer.signals.heads import head_scores, mean_scores, spread_reader
from sampling import sampled_batch, sequence
from tiny import tiny_model

LONG = ["3 + 4 = 7, so she has 7 apples and eats 2 of them. " * 8, "First add the numbers.\nThen 12 * 5 = 60.", "7"]


def maps_of(model, ids_T, layers):
    """Attention (layers x heads, T, T) of one sequence, by the eager route."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(ids_T[None], output_attentions=True).attentions
    model.set_attn_implementation(implementation)
    return torch.cat([maps[layer][0] for layer in layers])


@pytest.mark.parametrize("rows", [[0, 1, 2], [1], [0, 2]])
def test_mean_scores_are_those_of_the_maps(rows):
    model, sampled = tiny_model(), sampled_batch(rows, responses=LONG)
    reader = AttentionReader(model, [1, 2])
    few = sampled.few(torch.arange(len(rows)))
    received_BR, entropy_BR = mean_scores(few.attend(reader, stop_early=True), few)
    for row in range(len(rows)):
        ids_T, start = sequence(sampled, row)
        mean_TT = maps_of(model, ids_T, (1, 2)).mean(0)
        for t in range(start, len(ids_T)):
            expected = float(mean_TT[t + 1 :, t].sum())
            assert float(received_BR[row, t - start]) == pytest.approx(expected, abs=1e-5)
            entropy = -sum(p * math.log(p) for p in mean_TT[t, : t + 1].tolist() if p > 0)
            assert float(entropy_BR[row, t - start]) == pytest.approx(entropy / math.log(t + 1), abs=1e-5)


@pytest.mark.parametrize("rows", [[0, 1, 2], [1], [0, 2]])
def test_head_scores_are_those_of_the_maps(rows, monkeypatch):
    model, sampled = tiny_model(), sampled_batch(rows, responses=LONG)
    reader = AttentionReader(model, [1, 2])
    few = sampled.few(torch.arange(len(rows)))
    layers = few.attend(reader, stop_early=True)
    monkeypatch.setattr(heads, "AttentionPanels", lambda layers, **_: AttentionPanels(layers, panel_rows=16))
    waad_BR, fai_BR = head_scores(layers, few)
    for row in range(len(rows)):
        ids_T, start = sequence(sampled, row)
        stop = len(ids_T)
        maps_HTT = maps_of(model, ids_T, (1, 2))
        gap_TT = (torch.arange(stop)[:, None] - torch.arange(stop)).clamp_min(0)
        distance_H = (maps_HTT * gap_TT)[:, start:].sum(-1).mean(-1)
        order = distance_H.argsort()
        local_TT, global_TT = maps_HTT[order[:2]].mean(0), maps_HTT[order[-2:]].mean(0)  # 30 % of 8 heads
        for t in range(start, stop):
            waad = float((local_TT[t] * gap_TT[t].clamp_max(10)).sum())
            assert float(waad_BR[row, t - start]) == pytest.approx(waad, abs=1e-4)
            ahead = [float(global_TT[k, t]) for k in range(t + 10, min(t + 100, stop - 1) + 1)]
            fai = sum(ahead) / len(ahead) if ahead else 0.0
            assert float(fai_BR[row, t - start]) == pytest.approx(fai, abs=1e-5)


def test_five_layers_are_spread_over_the_middle_third():
    model = tiny_model(num_hidden_layers=24, hidden_size=16)
    assert spread_reader(model, None).layers == (8, 10, 12, 13, 15)
    assert spread_reader(model, [3]).layers == (3,)
    assert spread_reader(tiny_model(), None).layers == (1,)
    with pytest.raises(InputError, match="layers"):
        spread_reader(tiny_model(), [9])
