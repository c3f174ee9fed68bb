"""Credit's own forwards over prompts with images: each sequence as if it ran alone, whatever it is batched with."""

import pytest
import torch
from trl.trainer.utils import split_pixel_values_by_grid

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.errors import CaptureError
from flowtracer.model.capture import AttentionReader, record_attention
from flowtracer.signals.images import COUNTS, Images
from flowtracer.signals.reader import SignalReader
from sampling import tensors_of
from tiny_vlm import BOTH_WAYS, CAUSAL, asked, picture, sampled_of, tiny_vlm
from tolerances import assert_close

every_family = pytest.mark.parametrize("family", CAUSAL)

OF_IMAGES = ("flow", "attention", "heads", "logits", "output", "gradient", "perturbation")
"""What can be read where prompts show images."""
WIDE = picture(3, 28, 56)
ROWS = [
    ([picture(1)], "what is 3 + 4?", "3 + 4 = 7.\nA: 7<|end|>"),
    ([picture(2)], "what is 3 + 4?", "3 + 4 = 7.\nA: 7<|end|>"),  # the same tokens, another picture
    ([WIDE], "how many apples?", "First add.\nThe answer is 7. Yes.<|end|>"),
    ([picture(1)], "what is 3 + 4?", "no idea<|end|>"),
    ([picture(4), picture(5)], "how many?", "5 boxes, so\nA: 12<|end|>"),
]


def needing(*needs):
    """A strategy that is asked for its needs alone."""

    def credit(signals):
        return signals.advantages_B[:, None].expand(signals.mask_BR.shape)

    credit.needs = set(needs)
    return credit


def read(vlm, reader, rows):
    """Every tensor that is read of some of `ROWS`, with their own seeds."""
    return tensors_of(reader.read(sampled_of(asked(vlm, rows)), tuple(map(ROWS.index, rows)))[0])


@every_family
def test_rows_are_those_of_eager_attention_and_the_tower_is_not_read(family):
    vlm = tiny_vlm(family)
    batch = asked(vlm, ROWS)
    few = sampled_of(batch).few(torch.arange(len(ROWS)))
    inputs = few.inputs()
    own = [m for m in vlm.model.get_decoder().modules() if getattr(m, "layer_idx", None) is not None]
    tower = [m for m in vlm.model.modules() if type(m).__name__.endswith("Attention") and m not in own]
    assert len(tower) >= 2
    for layer, module in enumerate(tower):  # as some towers do
        module.layer_idx = layer
    reader = AttentionReader(vlm.model)
    with torch.no_grad():
        before = vlm.model(**inputs).logits
        with record_attention(vlm.model, None) as recorded:
            during = vlm.model(**inputs).logits
    assert torch.equal(before, during), "recording must not change a bit"
    lengths = {layer: attention.query_BHTD.shape[2] for layer, attention in recorded.items()}
    assert lengths == dict.fromkeys(range(4), few.ids_BT.shape[1])
    vlm.model.set_attn_implementation("eager")
    maps = {}

    def keep(module, _, output):
        maps[module.layer_idx] = output[1]

    hooks = [module.register_forward_hook(keep) for module in own]
    with torch.no_grad():
        vlm.model(**inputs)
    for hook in hooks:
        hook.remove()
    expected = torch.stack([maps[layer].float().mean(1) for layer in reader.layers]).mean(0).tril(-1)
    expected = expected * few.mask_BT[:, :, None]
    for layers in (reader.choose(recorded), few.attend(reader, stop_early=True)):
        got = AttentionPanels(layers).rows(0, few.ids_BT.shape[1])
        assert_close(got * few.mask_BT[:, :, None], expected, torch.float32)


@every_family
def test_every_sequence_reads_as_it_does_alone_and_no_other_picture_does(family):
    vlm = tiny_vlm(family)
    reader = SignalReader(vlm.model, vlm.processor.tokenizer, needing(*OF_IMAGES), rows_per_forward=2)
    together = read(vlm, reader, ROWS)
    for row, own in enumerate(ROWS):
        alone = read(vlm, reader, [own])
        assert set(alone) == set(together)
        for name, value in alone.items():
            got, expected = together[name][row].float(), value[0].float()
            got, largest = got[: len(expected)] if got.ndim else got, float(expected.abs().max()) or 1.0
            # A divergence of 1e-6 leaves float32 three digits of its derivative.
            off = 1e-3 if name == "influence_BR" else 1e-5
            torch.testing.assert_close(got / largest, expected / largest, rtol=2e-3, atol=off, msg=name)
    for name in ("throughput_BR", "received_BR", "row_entropy_BR", "log_prob_BR", "saliency_BR", "influence_BR"):
        one, other, *_ = together[name]
        assert float((one - other).abs().max()) > 1e-3 * float(one.abs().max()), name


def laid_out(**tensors):
    """Tensors whose rows are all different."""
    return {name: torch.arange(n * 12).view(n, 3, 2, 2) for name, n in tensors.items()}


@pytest.mark.parametrize(
    "batch",
    [
        {
            "pixel_values": torch.arange(28).view(14, 2),
            "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 3], [1, 2, 2]]),
        },
        laid_out(pixel_values=3, image_position_ids=3),
        laid_out(pixel_values=6, spatial_shapes=6, pixel_attention_mask=6) | {"num_tiles": [1, 5, 0]},
        laid_out(pixel_values=7) | {"num_tiles": [3, 4, 0]},
        laid_out(pixel_values=3, image_sizes=3),
    ],
    ids=["grids", "positions", "shapes", "tiles", "images"],
)
def test_tensors_are_cut_by_sequence_as_trl_cuts_them(batch):
    batch = batch | {"num_images": [1, 2, 0]}
    images = Images.of(batch, 3)
    assert images.shown == [True, True, False]
    for name, parts in split_pixel_values_by_grid(batch).items():
        if name not in COUNTS:
            assert len(images.pieces[name]) == 3
            for got, expected in zip(images.pieces[name], parts, strict=True):
                assert torch.equal(got, expected), name


def test_images_that_are_seen_from_both_ways_are_refused_for_what_reads_attention():
    vlm = tiny_vlm(BOTH_WAYS)
    sampled = sampled_of(asked(vlm, ROWS))
    few = sampled.few(torch.arange(len(ROWS)))
    reader = AttentionReader(vlm.model)
    with pytest.raises(CaptureError, match="tokens of an image attend to later ones, as in Gemma 3"):
        few.attend(reader, stop_early=True)
    for need in ("flow", "attention", "heads"):
        signals = SignalReader(vlm.model, vlm.processor.tokenizer, needing(need))
        with pytest.raises(CaptureError, match="a credit that reads neither"), signals.riding(sampled), torch.no_grad():
            vlm.model(**few.inputs())
    plain = SignalReader(vlm.model, vlm.processor.tokenizer, needing("logits", "gradient", "output"))
    one, other, *_ = read(vlm, plain, ROWS)["log_prob_BR"]
    assert float((one - other).abs().max()) > 0.01, "it sees its image"
    text_only = sampled_of(asked(vlm, [([], question, answer) for _, question, answer in ROWS]))
    assert text_only.images is None
    text_only.few(torch.arange(2)).attend(reader, stop_early=True)  # as a language model it is causal


def test_a_mask_of_any_kind_says_whether_it_looks_ahead():
    length = 150  # more than is looked at in one go
    ahead = torch.ones(length, length, dtype=torch.bool).tril()
    ahead[140, 143] = True

    def layer(mask):
        query = torch.zeros(1, 2, length, 4)
        return LayerAttention(layer=0, query_BHTD=query, key_BKTD=query, scale=1.0, mask=mask)

    for allowed, expected in ((ahead, True), (ahead.tril(), False)):
        added = torch.zeros(length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
        rule = lambda b, h, q, k, allowed=allowed: allowed[q, k]  # noqa: E731
        for mask in (allowed[None, None], added[None, None], rule):
            assert layer(mask).looks_ahead() is expected
    assert layer(None).looks_ahead() is False
