"""Attention kept of a generation is that of a forward over what was generated."""

import pytest
import torch

from flowtracer.credit import make_credit, needs_of
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from sampling import OF_ATTENTION, PROMPTS, RESPONSES, assert_same_readings
from tiny import tiny_model, tiny_tokenizer

NEW = 30


def generate(model, *, force=True, prompts=PROMPTS, **options):
    """Generate the given responses, forced onto the model, or others; padded as a trainer pads them."""
    tokenizer = tiny_tokenizer()
    asked = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    width = asked["input_ids"].shape[1]
    forced = [tokenizer(text)["input_ids"] for text in RESPONSES]

    def allowed(row, ids):
        place = len(ids) - width
        if not force:
            return list(range(3, len(tokenizer)))
        return [forced[row][place] if place < len(forced[row]) else tokenizer.pad_token_id]

    limit = max(map(len, forced)) if force else NEW
    torch.manual_seed(0)
    with torch.no_grad():
        whole = model.generate(
            **asked,
            prefix_allowed_tokens_fn=allowed,
            max_new_tokens=limit,
            do_sample=True,
            pad_token_id=tokenizer.pad_token_id,
            **options,
        )
    response_BR = whole[:, width:]
    ended = (response_BR == tokenizer.eos_token_id).cumsum(-1)
    mask_BR = ((ended == 0) | ((ended == 1) & (response_BR == tokenizer.eos_token_id))).long()
    return Sampled(
        prompt_ids_BP=asked["input_ids"],
        prompt_mask_BP=asked["attention_mask"],
        response_ids_BR=torch.where(mask_BR.bool(), response_BR, tokenizer.pad_token_id),
        response_mask_BR=mask_BR,
    )


def read_both_ways(model, credit, **options):
    reader = SignalReader(model, tiny_tokenizer(), credit, rows_per_forward=2)
    model.train()  # as in a trainer
    silent = generate(model, **options)
    with reader.hearing() as heard:
        sampled = generate(model, **options)
    assert torch.equal(sampled.response_ids_BR, silent.response_ids_BR), "listening changes no draw"
    seeds_B = tuple(range(len(sampled)))
    got, misses = reader.read(sampled, seeds_B, None, heard)
    share, lost = reader.own_forward, reader.lost
    expected, missed = reader.read(sampled, seeds_B)
    assert_same_readings(got, expected)
    assert misses == missed
    return share, lost


@pytest.mark.parametrize("name", OF_ATTENTION)
def test_generation_gives_the_numbers_of_a_forward(name):
    share, lost = read_both_ways(tiny_model(), make_credit(name))
    # The row of the last token of the longest response was never computed; the flow to an answer before it needs none.
    needs_all = needs_of(make_credit(name)) - {"group"} != {"flow"}
    assert share == pytest.approx(1 / 3 if needs_all else 0)
    assert lost is None


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 4, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}),
        ("mistral", {"sliding_window": 200}),
        ("phi3", {"resid_pdrop": 0.0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    ],
)
def test_positions_and_wide_windows_are_as_in_a_forward(family, options):
    assert read_both_ways(tiny_model(family, **options), make_credit("flow")) == (0, None)


@pytest.mark.parametrize(
    ("family", "options", "generation", "reason"),
    [
        ("mistral", {"sliding_window": 6}, {}, "short_cache"),
        ("llama", {"attention_dropout": 0.3}, {}, "differs"),
        ("gpt2", {"n_embd": 32, "n_layer": 4, "n_head": 4}, {}, "differs"),
        ("llama", {}, {"cache_implementation": "static"}, "short_cache"),
    ],
)
def test_what_does_not_hold_all_attention_takes_an_own_forward(family, options, generation, reason):
    """A window that hides, dropout, a cache of fixed size."""
    share, lost = read_both_ways(tiny_model(family, **options), make_credit("flow"), **generation)
    assert (share > 0, lost) == (True, reason)


def test_eager_attention_no_padding_and_no_cache():
    model = tiny_model()
    model.set_attn_implementation("eager")
    assert read_both_ways(model, make_credit("flow")) == (0, None)
    assert read_both_ways(tiny_model(), make_credit("flow"), prompts=[PROMPTS[0]] * 3) == (0, None)
    assert read_both_ways(tiny_model(), make_credit("flow"), use_cache=False) == (0, None), "each step is a forward"


def test_other_tokens_than_were_generated_are_not_read():
    model = tiny_model()
    reader = SignalReader(model, tiny_tokenizer(), make_credit("flow"))
    with reader.hearing() as heard:
        sampled = generate(model)
    sampled.response_ids_BR[0, 2] += 1
    reader.read(sampled, (0, 1, 2), None, heard)
    assert reader.own_forward > 0
    assert reader.lost == "other_tokens"


def test_a_budget_bounds_what_is_kept():
    model = tiny_model()
    reader = SignalReader(model, tiny_tokenizer(), make_credit("flow"), generation_bytes=1000)
    with reader.hearing() as heard:
        sampled = generate(model)
    assert not heard.layers
    assert not heard.ids
    reader.read(sampled, (0, 1, 2), None, heard)
    assert reader.own_forward > 0
    assert reader.lost == "over_budget"


def test_nothing_is_kept_that_nobody_needs():
    for credit, alike in (("uniform", False), ("entropy", False), ("flow", True)):
        reader = SignalReader(tiny_model(), tiny_tokenizer(), make_credit(credit), every_rank_alike=alike)
        with reader.hearing() as heard:
            assert heard is None


@pytest.mark.parametrize(("options", "heard"), [({"graph": "layered"}, True), ({"capacity": "value"}, False)])
def test_generation_shows_attention_and_no_values(options, heard):
    reader = SignalReader(tiny_model(), tiny_tokenizer(), make_credit("flow", options))
    with reader.hearing() as generated:
        assert (generated is not None) == heard
