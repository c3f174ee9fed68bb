"""What images do to a response: against plain forwards, and against pictures blackened before they are processed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from flowtracer.credit import make_credit, needs_of
from flowtracer.errors import InputError
from flowtracer.model.logits import LogitReader
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.visual import (
    SQUARE,
    black_of,
    blackened,
    noisy,
    read_changed,
    read_divergence,
    shown_in,
    without_images,
)
from sampling import sampled_batch
from tiny import tiny_model, tiny_tokenizer
from tiny_vlm import BOTH_WAYS, asked, picture, sampled_of, tiny_vlm
from tolerances import assert_close

FAMILIES = ("qwen2_5_vl", "smolvlm", "llava", BOTH_WAYS)
"""Patches on a grid, tiles, one square, and one whose attention runs both ways."""
ROWS = [
    ([picture(1)], "what is 3 + 4?", "3 + 4 = 7.\nA: 7<|end|>"),
    ([picture(2), picture(3)], "how many apples?", "First add.\nThe answer is 7. Yes.<|end|>"),
    ([picture(4)], "what is 3 + 4?", "3 + 4 = 7.\nA: 7<|end|>"),
]
SEEDS = (5, 6, 7)


def log_probs(vlm, batch):
    """The whole distribution at each response token, by a plain forward of the whole model."""
    names = {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "num_images"}
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    shown = {name: value for name, value in batch.items() if name not in names}
    with torch.no_grad():
        logits = vlm.model(input_ids=ids, **shown).logits.double()
    width = batch["completion_ids"].shape[1]
    return (logits[0, -width - 1 : -1] / 0.7).log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_divergence_is_that_from_the_text_alone(family):
    vlm = tiny_vlm(family)
    got_BR = read_divergence(
        LogitReader(vlm.model), sampled_of(asked(vlm, ROWS)), vlm.image_token, temperature=0.7, rows_per_forward=2
    )
    for row, own in enumerate(ROWS):
        batch = asked(vlm, [own])
        ids = batch["prompt_ids"]
        text = {name: batch[name] for name in ("completion_ids", "completion_mask")}
        text["prompt_ids"] = ids[ids != vlm.image_token][None]
        assert len(text["prompt_ids"][0]) <= ids.shape[1] - 1
        seen, blind = log_probs(vlm, batch), log_probs(vlm, text)
        expected = (seen.exp() * (seen - blind)).sum(-1)
        assert float(expected.max()) > 0.01
        largest = expected.max()
        assert_close(got_BR[row, : len(expected)] / largest, expected / largest, torch.float32)
        assert not got_BR[row, len(expected) :].any()


def test_where_nothing_is_shown_nothing_diverges():
    vlm = tiny_vlm("qwen2_5_vl")
    sampled = sampled_of(asked(vlm, [*ROWS[:1], ([], *ROWS[1][1:])]))
    assert shown_in(sampled).tolist() == [True, False]
    got_BR = read_divergence(LogitReader(vlm.model), sampled, vlm.image_token)
    assert got_BR[0].any()
    assert not got_BR[1].any()
    text = replace(without_images(sampled, vlm.image_token))
    assert shown_in(text).tolist() == [False, False]
    reader = SignalReader(vlm.model, vlm.processor.tokenizer, make_credit("visual"))
    assert not reader.read(text, SEEDS[:2])[0].visual.divergence_BR.any()


def chosen_squares(batch, vlm, row):
    """Which squares of a sequence's pixels are black, read off the pixels themselves."""
    black = black_of(vlm.processor.image_processor)
    images = sampled_of(batch).images
    pixels = images.pieces["pixel_values"][row]
    return pixels, blackened(black)(pixels, torch.Generator().manual_seed(SEEDS[row]))


def darkened(image, squares):
    """The picture with those of its squares black, row by row."""
    pixels = np.array(image)
    for n, dark in enumerate(squares):
        y, x = (SQUARE * k for k in divmod(n, image.width // SQUARE))
        pixels[y : y + SQUARE, x : x + SQUARE] *= 0 if dark else 1
    return Image.fromarray(pixels)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava"])
def test_black_squares_are_those_of_a_picture_blackened_before_it_is_processed(family):
    """Of a picture as large as the model takes it, which is then not resized."""
    vlm = tiny_vlm(family)
    image = picture(8, 28, 28)
    row = ([image], "what is 3 + 4?", "A: 7<|end|>")
    pixels, got = chosen_squares(asked(vlm, [row]), vlm, 0)
    if pixels.ndim == 2:  # a row a patch; a grid of 2 x 2 is merged to one token, in rows
        squares = [not torch.equal(one, other) for one, other in zip(pixels, got, strict=True)]
    else:
        corners = [(y, x) for y in (0, SQUARE) for x in (0, SQUARE)]
        squares = [bool((got != pixels)[0, :, y : y + SQUARE, x : x + SQUARE].any()) for y, x in corners]
    assert 0 < sum(squares) < 4
    expected = asked(vlm, [([darkened(image, squares)], *row[1:])])["pixel_values"]
    assert_close(got, expected, torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_changed_images_give_what_a_forward_over_them_gives_whatever_the_batch(family):
    vlm = tiny_vlm(family)
    reader, sampled = LogitReader(vlm.model), sampled_of(asked(vlm, ROWS))
    black = blackened(black_of(vlm.processor.image_processor))
    plain_BR = read_changed(reader, sampled, lambda pixels, _: pixels, SEEDS, temperature=0.7)
    for change in (black, noisy):
        got_BR = read_changed(reader, sampled, change, SEEDS, temperature=0.7, rows_per_forward=2)
        apart_B = (got_BR - plain_BR).abs().amax(-1)
        assert bool((apart_B > 1e-4).all())
        batch = asked(vlm, [ROWS[2]])
        generator = torch.Generator().manual_seed(SEEDS[2])
        alone = log_probs(vlm, batch | {"pixel_values": change(batch["pixel_values"], generator)})
        expected = alone.gather(-1, batch["completion_ids"][0, :, None]).squeeze(-1)
        assert_close(got_BR[2, : len(expected)], expected, torch.float32)


def test_half_of_the_squares_are_black_and_noise_is_mild():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 20 * SQUARE, 20 * SQUARE + 5, generator=generator)
    got = blackened((-2.0, -3.0, -4.0))(pixels, generator)
    dark = (got == torch.tensor([-2.0, -3.0, -4.0])[:, None, None]).all(1)
    assert 0.42 < float(dark.float().mean()) < 0.58
    assert torch.equal(got.masked_fill(dark[:, None], 0), pixels.masked_fill(dark[:, None], 0))
    assert 0.098 < float((noisy(pixels, generator) - pixels).std()) < 0.102
    with pytest.raises(InputError, match="where this processor puts a pixel is not known"):
        blackened((0.0, 0.0, 0.0))(torch.zeros(2, 9, 588), generator)


def test_what_compares_images_is_refused_where_there_are_none_or_black_is_unknown():
    for name in ("visual", "visual_mask", "visual_robust"):
        with pytest.raises(InputError, match="expected a model of text and images, got LlamaForCausalLM"):
            SignalReader(tiny_model(), tiny_tokenizer(), make_credit(name))
    vlm = tiny_vlm("llava")
    with pytest.raises(InputError, match="expected what black is to the model"):
        SignalReader(vlm.model, vlm.processor.tokenizer, make_credit("visual_mask"))
    assert needs_of(make_credit("visual")) == {"visual"}
    assert sampled_batch().images is None
