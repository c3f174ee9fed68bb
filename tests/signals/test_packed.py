"""Signals off a pass over packed sequences are those of forwards of our own over padded ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtracer.credit import make_credit
from flowtracer.errors import CaptureError
from flowtracer.signals.packed import places_of
from flowtracer.signals.reader import SignalReader
from sampling import OF_ATTENTION, assert_same_readings, sampled_batch
from tiny import tiny_model, tiny_tokenizer

SEEDS = (4, 5, 6, 7, 8)
ROWS = [2, 0, 1, 1, 2]


def rows_of(sampled):
    """Token ids of each sequence without padding."""
    ids_BT = torch.cat([sampled.prompt_ids_BP, sampled.response_ids_BR], 1)
    mask_BT = torch.cat([sampled.prompt_mask_BP, sampled.response_mask_BR], 1).bool()
    return [ids[mask] for ids, mask in zip(ids_BT, mask_BT, strict=True)]


@torch.no_grad()
def packed_pass(model, sampled, tail=0):
    """As verl runs the policy: one row, positions that restart with each sequence, and padding at its end."""
    rows = [*rows_of(sampled), torch.zeros(tail, dtype=torch.long)]
    positions_T = torch.cat([torch.arange(len(ids)) for ids in rows])
    return model.eval()(input_ids=torch.cat(rows)[None], position_ids=positions_T[None], use_cache=False).logits


@torch.no_grad()
def padded_pass(model, sampled):
    """The same without packing: whole sequences padded on the right."""
    rows = rows_of(sampled)
    mask = [torch.ones(len(ids), dtype=torch.long) for ids in rows]
    ids_BT, mask_BT = (torch.nn.utils.rnn.pad_sequence(each, batch_first=True) for each in (rows, mask))
    positions_BT = torch.arange(ids_BT.shape[1]).expand_as(ids_BT) * mask_BT
    return model.eval()(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, use_cache=False).logits


def read_off(run, name, rows, *, packed=True, family="qwen3", options=None):
    """What a pass gave, what a forward of our own gives, and the logits with and without somebody listening."""
    model, sampled = tiny_model(family, **(options or {})), sampled_batch(rows)
    reader = SignalReader(model, tiny_tokenizer(), make_credit(name))
    seeds = SEEDS[: len(rows)]
    expected, _ = reader.read(sampled, seeds)
    unheard = run(model, sampled)
    places = places_of([len(ids) for ids in rows_of(sampled)], packed=packed)
    with reader.riding(sampled, places) as ridden:
        heard = run(model, sampled)
    assert torch.equal(heard, unheard)
    got, _ = reader.read(sampled, seeds, ridden)
    assert reader.own_forward == 0
    return got, expected


@pytest.mark.parametrize("name", OF_ATTENTION)
@pytest.mark.parametrize("packed", [True, False])
def test_it_gives_the_numbers_of_an_own_forward(name, packed):
    assert_same_readings(*read_off(packed_pass if packed else padded_pass, name, ROWS, packed=packed))


@settings(max_examples=15)
@given(rows=st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=5), tail=st.integers(0, 9))
def test_in_whatever_order_and_with_a_padded_end(rows, tail):
    assert_same_readings(*read_off(lambda model, sampled: packed_pass(model, sampled, tail), "flow", rows))


def test_a_sliding_window_is_kept():
    assert_same_readings(*read_off(packed_pass, "flow", ROWS, family="mistral", options={"sliding_window": 6}))


def test_a_model_that_mixes_packed_sequences_is_refused():
    model, sampled = tiny_model(), sampled_batch(ROWS)
    reader = SignalReader(model, tiny_tokenizer(), make_credit("flow"))
    places = places_of([len(ids) for ids in rows_of(sampled)], packed=True)
    ids_1T = torch.cat(rows_of(sampled))[None]
    with pytest.raises(CaptureError, match="kept apart by their positions"), reader.riding(sampled, places):
        model(input_ids=ids_1T, use_cache=False)  # positions run on, and so does attention


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_places(lengths):
    packed = places_of(lengths, packed=True)
    assert all(place.row == 0 for place in packed)
    ends = [place.column + length for place, length in zip(packed, lengths, strict=True)]
    assert [place.column for place in packed] == [0, *ends[:-1]]
    assert places_of(lengths, packed=False) == [(row, 0) for row in range(len(lengths))]
