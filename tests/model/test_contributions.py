"""What capacities ask of a model, against float64 sums over its own tensors, on many families."""

import pytest
import torch

from families import EAGER_ONLY, FAMILIES, build, model_of
from flowtracer.attention.capacity import CAPACITIES, CapacityPanels, LayeredPanels, alti
from flowtracer.attention.layer import LayerAttention
from flowtracer.errors import CaptureError, InputError
from flowtracer.model.capture import intercept_attention
from flowtracer.model.contributions import ContributionReader, PredictedTokens, layer_reader
from flowtracer.model.logits import LogitReader
from tensor_memory import peak_tensor_bytes
from tiny import tiny_model
from tolerances import assert_close

# What models say about their own tiny configurations.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

LENGTH = 24
LAYER = 1
# Plain; weights the other way round and biases; side by side with the MLP; a norm behind it; latent values; sinks.
KINDS = ["llama", "gpt2", "gpt_neox", "cohere2", "gemma2", "olmo2", "deepseek_v3", "gpt_oss", "opt"]


def tokens(batch=2, length=LENGTH, seed=0):
    return torch.randint(3, 120, (batch, length), generator=torch.Generator().manual_seed(seed))


def padded():
    ids, mask = tokens(), torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :5] = 0
    return ids, mask


def predicted(ids):
    """The last two tokens of each row."""
    predicting = torch.zeros(ids.shape, dtype=torch.bool)
    predicting[:, -3:-1] = True
    return PredictedTokens(predicting_BT=predicting, token_ids_N=ids[:, -2:].flatten())


def dense(source, *layer):
    """All rows of a source of panels, of which the last is a short one."""
    out = torch.zeros(source.batch, LENGTH, LENGTH)
    for start in range(0, LENGTH, 10):
        stop = min(start + 10, LENGTH)
        out[:, start:stop, :stop] = source.rows(*layer, start, stop)
    return out


def pieces(layer: LayerAttention):
    """Weights, values by head, W_O and residual in float64."""
    weights, values = layer.weights(0, LENGTH).double(), layer.values
    by_head = values.by_head(weights.shape[1], LENGTH).double()
    residual = None if values.residual_BTM is None else values.residual_BTM.double()
    return weights, by_head, values.projection_HDM.double(), residual


def hook_tensor(module, seen, name, *, given=False):
    """Keep what a module is given, or what it gives, of a forward over whole texts."""

    def keep(module, args, kwargs, output):
        tensor = (args or [kwargs["hidden_states"]])[0] if given else output
        tensor = tensor[0] if isinstance(tensor, tuple) else tensor
        if tensor.shape[1] == LENGTH:
            seen[name] = tensor

    return module.register_forward_hook(keep, with_kwargs=True)


def shares(matrix):
    return matrix / matrix.sum(-1, keepdim=True).clamp_min(1e-300)


@pytest.mark.parametrize("family", KINDS)
def test_contributions_add_up_to_what_the_layer_makes(family):
    """What is read, summed over tokens, is the model's own sum of residual and update, but for the bias of W_O."""
    model = build(family, FAMILIES[family], "eager" if family in EAGER_ONLY else "sdpa")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # which models begin with at zero
                parameter.uniform_(-0.3, 0.3)
    reader = layer_reader(model, [LAYER], capacity="alti", graph="tokens")
    anatomy = reader._anatomy[LAYER]
    bias = anatomy.projection(torch.zeros(1, anatomy.width))[0].detach()
    assert bool(bias.any()) == (family in ("gpt2", "gpt_neox", "opt", "gpt_oss"))
    seen = {}
    hooks = [hook_tensor(anatomy.block, seen, "x", given=True), hook_tensor(anatomy.update, seen, "a")]
    ids, mask = padded()
    layer = reader.read(ids, mask, stop_early=False)[0]
    for hook in hooks:
        hook.remove()
    weights, values, projection, residual = pieces(layer)
    moved = torch.einsum("bhki,bhid,hdm->bkm", weights, values, projection)
    if anatomy.norm is not None:  # the update is the norm's; ours is that over a number a token
        assert family in ("gemma2", "olmo2")
        scale = seen["x"].double() / residual
        assert_close(scale.amax(-1), scale.amin(-1), torch.float32)
        moved = moved * scale[..., :1]
        residual = residual * scale
    valid = mask.bool()
    assert_close(residual[valid], seen["x"].double()[valid], torch.float32)
    assert_close((moved + bias)[valid], seen["a"].double()[valid], torch.float32)


@pytest.mark.parametrize("graph", ["tokens", "layered"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2", "gpt_oss"])
def test_value_and_alti_are_their_definitions(family, graph):
    ids, mask = padded()
    layers = layer_reader(model_of(family), [LAYER, 2], capacity="value", graph=graph).read(ids, mask)
    expected = []
    for layer in layers:
        weights, values, projection, residual = pieces(layer)
        norms = torch.einsum("bhid,hdm->bhim", values, projection).norm(dim=-1)
        expected.append((weights * norms[:, :, None]).sum(1))
        if residual is not None:
            expected[-1] += torch.diag_embed(residual.norm(dim=-1))
    check(layers, "value", graph, expected)

    layers = layer_reader(model_of(family), [LAYER, 2], capacity="alti", graph=graph).read(ids, mask)
    expected = []
    for layer in layers:
        weights, values, projection, residual = pieces(layer)
        each = torch.einsum("bhki,bhid,hdm->bkim", weights, values, projection)
        each += torch.diag_embed(residual.mT).permute(0, 2, 3, 1)
        whole = each.sum(2)
        nearer = whole.abs().sum(-1)[:, :, None] - (whole[:, :, None] - each).abs().sum(-1)
        expected.append(shares(nearer.clamp_min(0).tril()))
    check(layers, "alti", graph, expected)


def check(layers, capacity, graph, expected):
    """Panels of either graph against float64 matrices of each layer."""
    made = [CAPACITIES[capacity](layer) for layer in layers]
    if graph == "tokens":
        got = dense(CapacityPanels(made))
        assert_close(got, shares(torch.stack(expected).sum(0).tril(-1)), torch.float32)
        assert not got.triu().any()
    else:
        for number, matrix in enumerate(expected):
            got = dense(LayeredPanels(made), number)
            assert_close(got, shares(matrix), torch.float32)
            assert_close(got.sum(-1), torch.ones(2, LENGTH), torch.float32)


def slope(model, ids, layer):
    """W and dlog p(answer)/dW of a layer by autograd: its attention is computed from weights that are a leaf."""
    weights = layer_reader(model, [layer]).read(ids)[0].weights(0, LENGTH).detach().requires_grad_()

    def call(original, module, query, key, value, *rest, **kwargs):
        if module.layer_idx != layer:
            return original(module, query, key, value, *rest, **kwargs)
        values = value.repeat_interleave(weights.shape[1] // value.shape[1], 1)
        return (weights @ values).transpose(1, 2).contiguous(), None

    logits, asked = LogitReader(model), predicted(ids)
    with intercept_attention(model, call), torch.enable_grad():
        hidden = logits.hidden({"input_ids": ids})[asked.predicting_BT]
        (gradient,) = torch.autograd.grad(logits.log_probs(hidden, asked.token_ids_N).sum(), [weights])
    return weights.detach().double(), gradient.double()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "olmo2", "gpt_oss"])
def test_gradients_are_those_of_the_weights(family):
    model, ids, layers = model_of(family), tokens(), [LAYER, 2]
    read = layer_reader(model, layers, capacity="gradient", graph="tokens").read(ids, predicted=predicted(ids))
    for layer in read:
        weights, gradient = slope(model, ids, layer.layer)
        gained = (weights * gradient).relu().sum(1)
        size = float(gained.amax())
        assert size > 0
        got = CAPACITIES["gradient"](layer).contributions(0, LENGTH).double()
        attended = shares(weights.sum(1))
        assert_close(got / size, (gained + 0.01 * gained.sum(-1, keepdim=True) * attended) / size, torch.float32)
        # Behind the last position that predicts the answer nothing has a gradient: those rows are attention.
        assert not gained[:, -1].any()
        assert_close(shares(got)[:, -1], attended[:, -1], torch.float32)
    panels = CapacityPanels([CAPACITIES["gradient"](layer) for layer in read])
    assert_close(dense(panels).sum(-1)[:, 1:], torch.ones(2, LENGTH - 1), torch.float32)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "olmo2"])
def test_gradients_of_what_is_kept_and_what_is_moved_add_up(family):
    """What a token keeps gains <gradient at the sum, residual>, what it is given <gradient at the sum, update>."""
    model, ids = model_of(family), tokens()
    reader = layer_reader(model, [2], capacity="gradient", graph="layered")
    read = reader.read(ids, predicted=predicted(ids))[0]
    seen = {}
    anatomy = reader._anatomy[2]
    hooks = [hook_tensor(anatomy.block, seen, "x", given=True), hook_tensor(anatomy.update, seen, "a")]
    logits, asked = LogitReader(model), predicted(ids)
    with torch.enable_grad():
        hidden = logits.hidden({"input_ids": ids})[asked.predicting_BT]
        log_prob = logits.log_probs(hidden, asked.token_ids_N).sum()
        (at_update,) = torch.autograd.grad(log_prob, [seen["a"]])
    for hook in hooks:
        hook.remove()
    assert_close(read.values.kept_BT, (at_update.double() * seen["x"].double()).sum(-1), torch.float32)
    if anatomy.norm is None:  # a norm has a slope of its own, by which the whole update loses what its length gains
        weights, values = read.weights(0, LENGTH).double(), read.values.by_head(4, LENGTH).double()
        moved = torch.einsum("bhki,bhid,bhkd->bk", weights, values, read.values.gradient_BHTD.double())
        assert_close(moved, (at_update.double() * seen["a"].double()).sum(-1), torch.float32)


def test_scaled_sums_are_found():
    model = build("granite", {**FAMILIES["granite"], "residual_multiplier": 0.22}, "sdpa")
    anatomy = layer_reader(model, [LAYER], capacity="alti", graph="tokens")._anatomy[LAYER]
    assert anatomy.residual_scale == pytest.approx(1, abs=1e-4)
    assert anatomy.update_scale == pytest.approx(0.22, abs=1e-4)


class Adapted(torch.nn.Module):
    """A projection with a low-rank part beside it, as adapters are put in."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = torch.nn.Linear(64, 4, bias=False), torch.nn.Linear(4, 64, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(torch.nn.functional.dropout(self.down(x), 0.5, self.training))


def test_adapters_are_part_of_the_projection():
    adapted, merged, ids = (
        build("llama", FAMILIES["llama"], "sdpa"),
        build("llama", FAMILIES["llama"], "sdpa"),
        tokens(),
    )
    for layer, other in zip(adapted.model.layers, merged.model.layers, strict=True):
        layer.self_attn.o_proj = Adapted(layer.self_attn.o_proj)
        with torch.no_grad():
            other.self_attn.o_proj.weight += layer.self_attn.o_proj.up.weight @ layer.self_attn.o_proj.down.weight

    def rows(model):
        layers = layer_reader(model, [LAYER, 2], capacity="alti", graph="tokens").read(ids)
        return dense(CapacityPanels([CAPACITIES["alti"](layer) for layer in layers]))

    adapted.train()  # as in a trainer; dropout is no part of what is read
    assert_close(rows(adapted), rows(merged), torch.float32)
    assert adapted.model.layers[0].self_attn.o_proj.training
    assert (rows(adapted) - rows(model_of("llama"))).abs().max() > 0.01


def test_chosen_heads_are_the_heads():
    model, ids = model_of("llama"), tokens()
    whole = layer_reader(model, [LAYER], capacity="value", graph="tokens").read(ids)
    some = layer_reader(model, [LAYER], [0, 3], capacity="value", graph="tokens").read(ids)
    weights, values, projection, _ = pieces(whole[0])
    norms = torch.einsum("bhid,hdm->bhim", values, projection).norm(dim=-1)
    expected = (weights * norms[:, :, None])[:, [0, 3]].sum(1)
    check(some, "value", "tokens", [expected])


@pytest.mark.parametrize("capacity", ["value", "alti", "gradient"])
def test_padding_changes_nothing(capacity):
    model = model_of("olmo2")
    ids, mask = padded()
    reader = layer_reader(model, capacity=capacity, graph="layered")

    def matrices(layers):
        panels = LayeredPanels([CAPACITIES[capacity](layer) for layer in layers])
        return torch.stack([panels.rows(n, 0, panels.length) for n in range(panels.layers)])

    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    together = matrices(reader.read(ids, mask, positions, predicted=predicted(ids)))
    alone = matrices(reader.read(ids[1:, 5:], predicted=predicted(ids[1:, 5:])))
    assert_close(together[:, 1:, 5:, 5:], alone, torch.float32)


def test_reading_leaves_logits_and_modules_as_they_were():
    model, ids = build("gemma2", FAMILIES["gemma2"], "eager"), tokens()
    with torch.no_grad():
        before = model(ids).logits
    layer_reader(model, capacity="gradient", graph="layered").read(ids, predicted=predicted(ids))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_a_forward_ends_with_the_last_chosen_layer(family):
    model, ran = build(family, FAMILIES[family], "sdpa"), []
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    reader = layer_reader(model, [LAYER, 2], capacity="alti", graph="tokens")
    ran.clear()
    reader.read(tokens())
    assert ran == [0, 1]


def test_alti_is_made_a_few_columns_at_a_time(monkeypatch):
    layers = layer_reader(model_of("llama"), [LAYER], capacity="alti", graph="tokens").read(tokens(1))
    panels = LayeredPanels([CAPACITIES["alti"](layer) for layer in layers])
    expected, at_once = dense(panels, 0), peak_tensor_bytes(lambda: panels.rows(0, 0, LENGTH))
    monkeypatch.setitem(alti._CHUNK_BYTES, "cpu", 4 * LENGTH * 64 * 2)  # two columns
    assert_close(dense(panels, 0), expected, torch.float32)
    pairs = 4 * LENGTH * LENGTH * 64
    assert at_once > pairs, "all pairs fit the usual working memory here"
    assert peak_tensor_bytes(lambda: panels.rows(0, 0, LENGTH)) < pairs, "and are never made where they do not"


@pytest.mark.parametrize("capacity", ["value", "alti"])
def test_half_precision_models_are_read(capacity):
    def rows(model):
        layers = layer_reader(model, [LAYER], capacity=capacity, graph="layered").read(tokens())
        return dense(LayeredPanels([CAPACITIES[capacity](layer) for layer in layers]), 0)

    # Peaked attention would turn what half precision rounds in the scores into all of a row.
    expected, got = rows(tiny_model(initializer_range=0.1)), rows(tiny_model(initializer_range=0.1).bfloat16())
    assert_close(got, expected, torch.bfloat16)


@pytest.mark.parametrize("family", ["llama", "cohere2", "gpt_neox", "phi", "gemma2", "olmo2"])
def test_half_precision_hides_no_norm(family):
    """Rounding of a large residual leaves room for wrong sums; a norm that takes the attention's output comes first."""
    half = build(family, FAMILIES[family], "eager" if family in EAGER_ONLY else "sdpa").bfloat16()
    anatomy = layer_reader(half, [LAYER], capacity="alti", graph="tokens")._anatomy[LAYER]
    assert (anatomy.norm is not None) == (family in ("gemma2", "olmo2"))
    assert (anatomy.residual_scale, anatomy.update_scale) == (1, 1)


@pytest.mark.parametrize(
    ("family", "capacity", "message"),
    [
        ("qwen3_next", "value", "joined by one linear projection, as capacity 'value'.*layer 3 of Qwen3Next"),
        ("minimax", "alti", "adds its attention to what it was given, as capacity 'alti'.*MiniMax"),
        ("llama4_text", "gradient", "decoder without the LM head"),
    ],
)
def test_layers_that_are_built_otherwise_are_refused_by_name(family, capacity, message):
    ids = tokens()
    with pytest.raises(CaptureError, match=message):
        layer_reader(model_of(family), capacity=capacity, graph="tokens").read(ids, predicted=predicted(ids))


def test_what_is_missing_is_named():
    model = model_of("llama")
    with pytest.raises(InputError, match="the answer's tokens"):
        layer_reader(model, capacity="gradient", graph="tokens").read(tokens())
    plain = layer_reader(model).read(tokens())
    assert not isinstance(layer_reader(model, graph="layered"), ContributionReader)
    for capacity in ("value", "gradient", "alti"):
        with pytest.raises(InputError, match=r"read with their .*same capacity"):
            CAPACITIES[capacity](plain[0]).contributions(0, LENGTH)
