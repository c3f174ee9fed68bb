"""Signals off somebody else's forwards are those of our own, and that forward gives what it gives unheard."""

import pytest
import torch

from flowtracer.credit import make_credit
from flowtracer.credit.signals import LogitSignals
from flowtracer.errors import CaptureError
from flowtracer.model.capture import AttentionReader
from flowtracer.signals.passes import rides_truly
from flowtracer.signals.reader import SignalReader
from sampling import OF_ATTENTION, assert_same_readings, sampled_batch
from tiny import tiny_model, tiny_tokenizer

SEEDS = (4, 5, 6, 7, 8)
ROWS = [2, 0, 1, 1, 2]  # two have no answer; prompts are padded on the left, responses on the right


def trainers_pass(model, sampled, rows, *, passes=None):
    """As TRL runs the policy: a few sequences at a time, padded as sampled, without positions, in training mode."""
    ids_BT = torch.cat([sampled.prompt_ids_BP, sampled.response_ids_BR], 1)
    mask_BT = torch.cat([sampled.prompt_mask_BP, sampled.response_mask_BR], 1)
    model.train()
    with torch.no_grad():
        pieces = list(zip(ids_BT.split(rows), mask_BT.split(rows), strict=True))[:passes]
        parts = [model(input_ids=ids, attention_mask=mask) for ids, mask in pieces]
    return torch.cat([part.logits for part in parts])


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("name", OF_ATTENTION)
def test_a_ridden_pass_gives_the_numbers_of_an_own_forward(name, rows):
    model, sampled = tiny_model(), sampled_batch(ROWS)
    reader = SignalReader(model, tiny_tokenizer(), make_credit(name), rows_per_forward=3)
    expected, missed = reader.read(sampled, SEEDS)
    assert reader.own_forward
    unheard = trainers_pass(model, sampled, rows)
    with reader.riding(sampled) as ridden:
        heard = trainers_pass(model, sampled, rows)
    assert torch.equal(heard, unheard)
    calls = []
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: calls.append(1))
    got, misses = reader.read(sampled, SEEDS, ridden)
    assert not calls
    assert reader.own_forward == 0
    assert_same_readings(got, expected)
    assert misses == missed


@pytest.mark.parametrize("at", ["token", "prediction"])
def test_a_sliding_window_is_ridden_on(at):
    model = tiny_model("mistral", sliding_window=6)
    sampled, credit = sampled_batch(ROWS), make_credit("flow", {"at": at})
    reader = SignalReader(model, tiny_tokenizer(), credit)
    expected, _ = reader.read(sampled, SEEDS)
    with reader.riding(sampled) as ridden:
        trainers_pass(model, sampled, 2)
    assert_same_readings(reader.read(sampled, SEEDS, ridden)[0], expected)


def test_what_a_pass_leaves_out_is_read_by_an_own_forward():
    model, sampled = tiny_model(), sampled_batch(ROWS)
    reader = SignalReader(model, tiny_tokenizer(), make_credit("flow"))
    expected, _ = reader.read(sampled, SEEDS)
    with reader.riding(sampled) as ridden:
        model(input_ids=torch.arange(7)[None])  # of another width: no such pass
        trainers_pass(model, sampled, 2, passes=1)
    assert ridden.waiting[0].missing.tolist() == [2, 3]
    assert_same_readings(reader.read(sampled, SEEDS, ridden)[0], expected)
    assert reader.own_forward


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"graph": "layered"}, 0),
        ({"capacity": "value"}, 3 / 5),
        ({"capacity": "alti", "graph": "layered"}, 3 / 5),
    ],
)
def test_what_a_pass_does_not_show_takes_an_own_forward(options, share):
    """Values and residuals are none of what is listened to: three of the five sequences have an answer."""
    model, sampled = tiny_model(), sampled_batch([2, 0, 1, 1, 2])
    reader = SignalReader(model, tiny_tokenizer(), make_credit("flow", options))
    expected, _ = reader.read(sampled, SEEDS)
    with reader.riding(sampled) as ridden:
        trainers_pass(model, sampled, 2)
    got, _ = reader.read(sampled, SEEDS, ridden)
    assert reader.own_forward == share
    assert_same_readings(got, expected)
    assert got.flow.traced_B.any()


def test_ridden_logits_are_taken_as_they_are():
    model, sampled = tiny_model(), sampled_batch(ROWS)
    reader = SignalReader(model, tiny_tokenizer(), make_credit("entropy"))
    assert reader.wants_logits
    with reader.riding(sampled) as ridden:
        pass
    ones_BR = torch.ones(sampled.response_ids_BR.shape)
    ridden.logits = LogitSignals(entropy_BR=ones_BR, log_prob_BR=-ones_BR)
    readings, _ = reader.read(sampled, SEEDS, ridden)
    assert readings.logits is ridden.logits
    assert reader.own_forward == 0


@pytest.mark.parametrize(
    ("family", "options", "rides"),
    [
        ("llama", {}, True),
        ("qwen3", {}, True),
        ("llama", {"attention_dropout": 0.5}, False),
        ("gpt2", {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4}, False),
        ("gpt2", {"n_embd": 32, "n_layer": 4, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}, False),
    ],
)
def test_a_pass_that_attends_otherwise_is_not_ridden_on(family, options, rides):
    """Dropout, and positions that are learned one by one."""
    model = tiny_model(family, **options)
    reader = AttentionReader(model)
    state = torch.random.get_rng_state()
    model.train()
    assert rides_truly(model, reader) == rides
    assert torch.equal(state, torch.random.get_rng_state()), "the draws of a training stay as they were"
    assert model.training


def test_an_attention_that_cannot_be_read_is_named(monkeypatch):
    reader = SignalReader(tiny_model("mamba", state_size=4), tiny_tokenizer(), make_credit("flow"))
    with pytest.raises(CaptureError, match="attention interface"), reader.riding(sampled_batch()):
        pass
