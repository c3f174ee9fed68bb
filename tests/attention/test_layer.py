"""A layer cut to some heads, sequences or tokens attends as those of the whole layer do, however it is masked."""

import pytest
import torch

from flowtracer.attention.layer import LayerAttention
from tolerances import assert_close

B, H, K, T, D = 3, 4, 2, 11, 8
CAUSAL_TT = torch.ones(T, T, dtype=torch.bool).tril()
ALLOWED_BHTT = CAUSAL_TT & (torch.rand(B, H, T, T, generator=torch.Generator().manual_seed(0)) < 0.7)
WINDOWS_BH = torch.arange(1, B * H + 1).view(B, H)


def by_rule(b, h, q, k):
    return (k <= q) & (q - k < WINDOWS_BH[b, h])


VARIANTS = {
    "causal": {"mask": None},
    "window": {"mask": None, "window": 3},
    "segments": {"mask": None, "segments_BT": torch.arange(T).div(4, rounding_mode="floor").expand(B, -1) + 1},
    "rule": {"mask": by_rule},
    "boolean": {"mask": ALLOWED_BHTT},
    "boolean, one for all": {"mask": CAUSAL_TT[None, None]},
    "boolean, by head": {"mask": ALLOWED_BHTT[:1]},
    "boolean, by sequence": {"mask": ALLOWED_BHTT[:, :1]},
    "additive": {"mask": torch.zeros(B, H, T, T).masked_fill(~ALLOWED_BHTT, torch.finfo(torch.float32).min)},
    "bias": {"mask": by_rule, "position_bias": torch.randn(1, H, T, T)},
    "sinks": {"mask": by_rule, "sinks_H": torch.randn(H)},
}


@pytest.fixture(params=VARIANTS)
def layer(request):
    generator = torch.Generator().manual_seed(1)
    query, keys = torch.randn(B, H, T, D, generator=generator), torch.randn(B, K, T, D, generator=generator)
    return LayerAttention(layer=2, query_BHTD=query, key_BKTD=keys, scale=0.5, **VARIANTS[request.param])


def same(got, expected):
    assert_close(got, expected, torch.float32)


def test_some_heads(layer):
    whole = layer.weights(0, T)
    same(layer.with_heads([3, 1]).weights(0, T), whole[:, [3, 1]])
    same(layer.with_heads([3, 1, 2]).with_heads([2, 0]).weights(2, 7), whole[:, [2, 3], 2:7, :7])


def test_some_sequences(layer):
    whole = layer.weights(0, T)
    same(layer.with_sequences([2, 0]).weights(0, T), whole[[2, 0]])
    same(layer.with_sequences([2, 1]).with_sequences([1]).weights(2, 7), whole[[1], :, 2:7, :7])


def test_heads_of_sequences_and_sequences_of_heads(layer):
    expected = layer.weights(0, T)[[2]][:, [1, 3]]
    same(layer.with_sequences([2]).with_heads([1, 3]).weights(0, T), expected)
    same(layer.with_heads([1, 3]).with_sequences([2]).weights(0, T), expected)


def test_a_part_attends_within_itself(layer):
    first = layer.part(slice(1, 3), 0, 6)
    same(first.weights(0, 6), layer.weights(0, 6)[1:3])
    # Later tokens lose what stood before the part, and share their attention among what is left.
    inside = layer.weights(0, T)[[1], :, 5:9, 5:9]
    if layer.sinks_H is None:
        expected = inside / inside.sum(-1, keepdim=True).clamp_min(1e-30)
        same(layer.segment(1, 5, 9).weights(0, 4), expected)
    same(layer.segment(1, 5, 9).with_heads([2]).weights(0, 4), layer.segment(1, 5, 9).weights(0, 4)[:, [2]])
