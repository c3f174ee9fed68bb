"""Rows of attention against the maps that eager attention returns, and a recording that disturbs nothing."""

import functools
import threading

import pytest
import torch
from transformers import AutoModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from families import EAGER_ONLY, FAMILIES, REFUSED, build, model_of
from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.errors import CaptureError, InputError
from flowtracer.model.capture import AttentionReader, attention_layers, layer_attention, middle_third, record_attention
from tiny import tiny_model
from tolerances import assert_close

LENGTH = 40
both_backends = pytest.mark.parametrize(
    ("family", "backend"),
    [(f, b) for f in sorted(FAMILIES) for b in ("sdpa", "eager") if b == "eager" or f not in EAGER_ONLY],
)
# What models say about their own tiny configurations.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def tokens(batch=2, length=LENGTH, seed=0):
    return torch.randint(3, 120, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded(side):
    """Ids and a mask whose second row is shorter by seven tokens."""
    ids, mask = tokens(), torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, : 7 if side == "left" else None] = 0
    if side == "right":
        mask[1] = 1
        mask[1, -7:] = 0
    return ids, mask


def all_rows(layers, panel_rows=13):
    panels = AttentionPanels(layers, panel_rows=panel_rows)
    out = torch.zeros(panels.batch, panels.length, panels.length)
    for start in range(0, panels.length, panel_rows):
        stop = min(start + panel_rows, panels.length)
        out[:, start:stop, :stop] = panels.rows(start, stop)
    return out


def eager_maps(family, ids, mask, layers):
    """Head-mean maps of the layers, by the output_attentions of an eager twin, as transformers' hooks collect them."""
    eager, maps = model_of(family, "eager"), {}

    def keep(module, _, output):
        if (
            isinstance(output, tuple)
            and len(output) > 1
            and isinstance(output[1], torch.Tensor)
            and output[1].ndim == 4
        ):
            maps[module.layer_idx] = output[1]

    hooks = [m.register_forward_hook(keep) for m in eager.modules() if getattr(m, "layer_idx", None) is not None]
    with torch.no_grad():
        eager(ids, attention_mask=mask, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack([maps[layer].float().mean(1) for layer in layers]).mean(0).tril(-1)


@both_backends
def test_rows_are_those_of_the_eager_maps_and_logits_are_untouched(family, backend):
    model = model_of(family, backend)
    ids, mask = padded("left")
    reader = AttentionReader(model)
    with torch.no_grad():
        before = model(ids, attention_mask=mask).logits
        with record_attention(model, reader.layers) as recorded:
            during = model(ids, attention_mask=mask).logits
    assert torch.equal(before, during), "recording must not change a bit"
    expected = eager_maps(family, ids, mask, reader.layers)
    both = mask.bool()[:, :, None] & mask.bool()[:, None, :]
    for layers in (reader.choose(recorded), reader.read(ids, mask)):
        got = all_rows(layers)
        assert_close(got * both, expected * both, torch.float32)
        assert not got[~both].any(), "padding neither attends nor is attended to"
    assert float(expected.max()) > 0.3, "the test needs attention that is far from uniform"


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss", "gpt2", "deepseek_v3"])
def test_right_padding_and_alone_are_the_same(family):
    model = model_of(family)
    reader = AttentionReader(model)
    ids, mask = padded("right")
    together = all_rows(reader.read(ids, mask))
    alone = all_rows(reader.read(ids[1:, :-7]))
    assert_close(together[1:, :-7, :-7], alone, torch.float32)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_packed_rows_are_the_sequences_alone(family):
    reader = AttentionReader(model_of(family))
    ids = tokens(1)
    positions = torch.cat([torch.arange(15), torch.arange(25)])[None]
    packed = reader.read(ids, position_ids_BT=positions)
    for start, stop in ((0, 15), (15, 40)):
        alone = all_rows(reader.read(ids[:, start:stop]))
        assert_close(all_rows([layer.segment(0, start, stop) for layer in packed]), alone, torch.float32)
    assert not all_rows(packed)[0, 15:, :15].any()


@pytest.mark.parametrize("panel_rows", [1, 7, 40, 100])
def test_any_panel_size(panel_rows):
    layers = AttentionReader(model_of("gpt_oss")).read(*padded("left"))
    assert_close(all_rows(layers, panel_rows), all_rows(layers), torch.float32)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flex_attention_rules(monkeypatch):
    # Flex attention compiles itself; that takes a C++ compiler and a minute, and changes no mask.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model = model_of("llama", "flex_attention")
    ids, mask = padded("left")
    layers, expected = AttentionReader(model).read(ids, mask), AttentionReader(model_of("llama")).read(ids, mask)
    assert_close(all_rows(layers), all_rows(expected), torch.float32)
    got, part = ([layer.part(torch.tensor([1, 0]), 3, 30) for layer in every] for every in (layers, expected))
    assert_close(all_rows(got), all_rows(part), torch.float32)


def test_a_trace_runs_no_layer_after_the_last_chosen_one():
    model = build("llama", FAMILIES["llama"], "sdpa")
    ran = []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    reader = AttentionReader(model, layers=[1, 2])
    ran.clear()
    reader.read(tokens())
    assert ran == [0, 1], "layer 2 ends inside its attention; 3 and the head never run"
    ran.clear()
    reader.read(tokens(), stop_early=False)
    assert ran == [0, 1, 2, 3, "head"]


def test_hybrids_are_read_by_their_own_layer_index():
    assert attention_layers(model_of("qwen3_next")) == [3]
    assert AttentionReader(model_of("qwen3_5_text")).layers == (3,)
    assert attention_layers(model_of("minimax")) == [0, 2]


@pytest.mark.parametrize(
    ("n", "expected"), [(36, range(12, 24)), (30, range(10, 20)), (4, [1]), (3, [1]), (2, [0]), (1, [0])]
)
def test_middle_third(n, expected):
    assert middle_third(list(range(n))) == tuple(expected)


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_chosen_heads(family):
    model = model_of(family)
    ids, mask = padded("left")
    whole = AttentionReader(model, layers=[1]).read(ids, mask)[0]
    single = [all_rows(AttentionReader(model, [1], [head]).read(ids, mask)) for head in range(4)]
    by_head = whole.weights(0, LENGTH).tril(-1)
    for head in range(4):
        assert_close(single[head], by_head[:, head], torch.float32)
    mixed = AttentionReader(model, [1, 2], {1: [0, 3], 2: [2]}).read(ids, mask)
    other = AttentionReader(model, [2], [2]).read(ids, mask)
    assert_close(all_rows(mixed), (single[0] + single[3] + all_rows(other)) / 3, torch.float32)


@pytest.mark.parametrize(("layers", "heads"), [([9], None), ([], None), (None, [4]), (None, [-1]), (None, [])])
def test_layers_and_heads_that_do_not_exist(layers, heads):
    with pytest.raises(InputError, match=r"expected (layers|heads)"):
        AttentionReader(model_of("llama"), layers, heads).read(tokens())


def test_heads_must_be_given_for_every_layer():
    with pytest.raises(InputError, match=r"each of the layers \[1, 2\]"):
        AttentionReader(model_of("llama"), [1, 2], {1: [0]})


def test_a_model_of_nan_is_refused_as_such():
    model = build("llama", FAMILIES["llama"], "sdpa")
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight.fill_(torch.nan)
    with pytest.raises(CaptureError, match="NaN or infinity in layer 0"):
        AttentionReader(model)


def test_half_precision_model():
    model = build("llama", FAMILIES["llama"], "sdpa").bfloat16()
    expected = all_rows(AttentionReader(model_of("llama")).read(tokens()))
    assert_close(all_rows(AttentionReader(model).read(tokens())), expected, torch.bfloat16)


def test_a_trained_model_keeps_its_mode_and_its_checkpointing():
    model = build("llama", {**FAMILIES["llama"], "attention_dropout": 0.5}, "sdpa").train()
    model.gradient_checkpointing_enable()
    rows = [all_rows(AttentionReader(model).read(tokens())) for _ in range(2)]
    assert torch.equal(*rows), "no dropout while reading"
    assert model.training


def test_generation_and_other_models_are_not_recorded():
    model, other = model_of("llama"), build("llama", FAMILIES["llama"], "sdpa")
    with record_attention(model, [1]) as recorded, torch.no_grad():
        other(tokens())
        assert not recorded
        model.generate(tokens(1, 5), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert recorded[1].query_BHTD.shape[2] == 5, "the prompt's forward only, not the steps behind it"


def test_the_registry_is_restored_after_an_error():
    before = dict(ALL_ATTENTION_FUNCTIONS)

    def fail():
        with record_attention(model_of("llama"), [1]), record_attention(model_of("qwen3"), [1]):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_threads_read_their_own_model():
    families = ["llama", "qwen3", "gemma3_text", "llama"]
    expected = [all_rows(AttentionReader(model_of(f)).read(tokens(seed=n))) for n, f in enumerate(families)]
    got = [None] * len(families)

    def read(n):
        got[n] = all_rows(AttentionReader(model_of(families[n])).read(tokens(seed=n)))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(len(families))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(got, expected, strict=True):
        assert_close(mine, theirs, torch.float32)


# Flash attention runs on GPUs only; how its masks are understood is checked here against the 4-D mask they stand for.


class FlashLayer:
    layer_idx, is_causal = 0, True


def flash_model():
    model = tiny_model()
    model.config._attn_implementation = "flash_attention_2"  # read alone; what sets it checks for a GPU
    return model


def flash_rows(mask, **kwargs):
    query, keys = torch.randn(2, 2, 4, 12, 8)
    attention = layer_attention(flash_model(), FlashLayer(), query, keys[:, :2], mask, {"scaling": 0.3, **kwargs})
    dense = {"layer": 0, "query_BHTD": query, "key_BKTD": keys[:, :2], "scale": 0.3}
    return all_rows([attention], 5), lambda allowed: all_rows([LayerAttention(**dense, mask=allowed)], 5)


CAUSAL = torch.ones(12, 12, dtype=torch.bool).tril()
PADDING = torch.tensor([[1] * 12, [0] * 4 + [1] * 8])
SEGMENTS = torch.tensor([0] * 5 + [1] * 7)
POSITIONS = torch.cat([torch.arange(5), torch.arange(7)])[None]


@pytest.mark.parametrize(
    ("mask", "arguments", "allowed"),
    [
        (None, {}, CAUSAL[None, None].expand(2, 1, -1, -1)),
        (None, {"sliding_window": 3}, (CAUSAL & ~CAUSAL.tril(-3))[None, None].expand(2, 1, -1, -1)),
        (PADDING, {}, (CAUSAL & (PADDING[:, None, :] > 0) & (PADDING[:, :, None] > 0))[:, None]),
        (
            None,
            {"position_ids": POSITIONS},
            (CAUSAL & (SEGMENTS[:, None] == SEGMENTS))[None, None].expand(2, 1, -1, -1),
        ),
        (
            None,
            {"cu_seq_lens_q": torch.tensor([0, 5, 12])},
            (CAUSAL & (SEGMENTS[:, None] == SEGMENTS))[None, None].expand(2, 1, -1, -1),
        ),
    ],
)
def test_masks_of_flash_attention(mask, arguments, allowed):
    got, expected = flash_rows(mask, **arguments)
    assert_close(got, expected(allowed), torch.float32)


# Rows and what must not be hidden in them


def plain_layer(**changes):
    query, keys = torch.randn(2, 1, 2, 6, 4)
    return LayerAttention(**{"layer": 0, "query_BHTD": query, "key_BKTD": keys, "scale": 0.5, "mask": None, **changes})


def test_a_row_that_may_attend_to_nothing_is_zero():
    allowed = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    allowed[..., 3, :] = False
    rows = all_rows([plain_layer(mask=allowed)], 2)
    assert not rows[0, 3].any()
    additive = torch.zeros(1, 1, 6, 6).masked_fill(~allowed, torch.finfo(torch.float32).min)
    assert_close(all_rows([plain_layer(mask=additive)], 2)[0, 3], torch.zeros(6))
    assert rows[0, 4].any()


@pytest.mark.parametrize("mask", [None, torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()])
def test_nan_stays_visible(mask):
    layer = plain_layer(mask=mask)
    layer.query_BHTD[0, 0, 4] = torch.nan
    rows = all_rows([layer], 2)
    assert rows[0, 4, :4].isnan().all()
    assert rows[0, :4].isfinite().all()


def test_sinks_take_their_share():
    plain = plain_layer()
    sunk = LayerAttention(
        **{name: getattr(plain, name) for name in ("layer", "query_BHTD", "key_BKTD", "scale", "mask")},
        sinks_H=torch.full((2,), 30.0),
    )
    assert plain.weights(0, 6).sum(-1).min() > 0.999
    assert sunk.weights(0, 6).sum(-1).max() < 1e-6


# What is refused


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_families_without_the_interface_are_refused(family):
    with pytest.raises(CaptureError, match=r"attention interface.*docs/capture.md"):
        AttentionReader(build(family, REFUSED[family], "eager"))


def test_a_bidirectional_model_is_refused():
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    for backend in ("sdpa", "eager"):
        config._attn_implementation = backend
        with pytest.raises(CaptureError, match="causal"):
            AttentionReader(AutoModel.from_config(config).eval())


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_attention_that_applies_something_unknown_is_refused(backend, monkeypatch):
    import transformers.models.llama.modeling_llama as modeling

    model = build("llama", FAMILIES["llama"], backend)

    def louder(inner):
        def attention(*args, **kwargs):
            output, weights = inner(*args, **kwargs)
            return output * 1.5, weights

        return attention

    if backend == "eager":
        monkeypatch.setattr(modeling, "eager_attention_forward", louder(modeling.eager_attention_forward))
    else:
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", louder(ALL_ATTENTION_FUNCTIONS["sdpa"]))
    with pytest.raises(CaptureError, match="follow from its queries and keys"):
        AttentionReader(model)
