"""The reader computes what a strategy needs and nothing else, the same for a row as for a batch."""

import pytest
import torch

from flowtracer.credit import NEEDS, make_credit, needs_of, of_text
from flowtracer.errors import InputError
from flowtracer.signals.reader import SignalReader, refuse_sharded
from sampling import sampled_batch, tensors_of
from tiny import tiny_model, tiny_tokenizer

GOLDS = ["7", "7", None]
SEEDS = (4, 5, 6)


def counted(model):
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append("decoder"))
    model.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    return calls


@pytest.mark.parametrize("name", sorted(of_text()))
def test_only_what_is_needed_is_computed(name):
    model, credit = tiny_model(), make_credit(name)
    reader = SignalReader(model, tiny_tokenizer(), credit)
    reader.read(sampled_batch(golds=GOLDS), SEEDS)  # readers prove themselves once
    calls = counted(model)
    readings, _ = reader.read(sampled_batch(golds=GOLDS), SEEDS)
    needs = needs_of(credit)
    got = {need for need in NEEDS if getattr(readings, need) is not None}
    assert needs - {"group"} <= got
    assert got - needs <= {"answer", "logits"}, "what others are made from"
    if not needs & {"logits", "output", "gain", "gold", "gradient", "perturbation"}:
        assert "head" not in calls
        assert calls == [], "a forward that ends inside the decoder never returns from it"


@pytest.mark.parametrize("name", sorted(of_text()))
def test_a_row_alone_is_the_row_of_a_batch(name):
    credit = make_credit(name)
    reader = SignalReader(tiny_model(), tiny_tokenizer(), credit, rows_per_forward=2)
    together, _ = reader.read(sampled_batch(golds=GOLDS), SEEDS)
    for row in range(3):
        own = sampled_batch([row], golds=GOLDS)
        alone, _ = reader.read(own, SEEDS[row : row + 1])
        width = own.response_ids_BR.shape[1]
        for field, value in tensors_of(alone).items():
            expected = tensors_of(together)[field][row : row + 1]
            expected = expected[:, :width] if expected.ndim > 1 else expected
            torch.testing.assert_close(value, expected, rtol=2e-3, atol=1e-5, msg=field)


@pytest.mark.parametrize("name", ["flow", "entropy", "local", "likelihood_gain", "delta"])
def test_every_rank_alike_changes_no_number(name):
    model, credit = tiny_model(), make_credit(name)
    plain, _ = SignalReader(model, tiny_tokenizer(), credit).read(sampled_batch(golds=GOLDS), SEEDS)
    alike = SignalReader(model, tiny_tokenizer(), credit, every_rank_alike=True)
    for field, value in tensors_of(alike.read(sampled_batch(golds=GOLDS), SEEDS)[0]).items():
        torch.testing.assert_close(value, tensors_of(plain)[field], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradient", "grail", "oar", "progress"])
def test_uneven_passes_are_refused_on_a_sharded_model(name):
    with pytest.raises(InputError, match="sharded by FSDP or ZeRO"):
        refuse_sharded(make_credit(name))
    with pytest.raises(InputError, match="use DDP"):
        SignalReader(tiny_model(), tiny_tokenizer(), make_credit(name), every_rank_alike=True)


def test_misses_are_named():
    reader = SignalReader(tiny_model(), tiny_tokenizer(), make_credit("flow"))
    readings, misses = reader.read(sampled_batch(), SEEDS)
    assert misses == {"no_answer": 1}
    assert readings.flow.traced_B.tolist() == [True, True, False]
