import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.rl.advantages import boosted, normalised


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32))
def test_normalised_factors_have_mean_one(batch, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    weights_BR = torch.rand(batch, tokens, generator=generator, dtype=torch.float64) + 0.1
    advantages_B = torch.randn(batch, generator=generator, dtype=torch.float64)
    mask_BR = torch.rand(batch, tokens, generator=generator) < 0.7
    scaled_BR = normalised(advantages_B[:, None] * weights_BR, advantages_B, mask_BR)
    for row in range(batch):
        counted = (scaled_BR / advantages_B[:, None])[row][mask_BR[row]]
        assert not len(counted) or abs(float(counted.mean()) - 1) < 1e-12
    ratio = scaled_BR / (advantages_B[:, None] * weights_BR)
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio))


def test_a_response_without_an_advantage_stays_as_it_is():
    given_BR = torch.tensor([[0.5, -0.5], [0.0, 0.0]])
    mask_BR = torch.ones(2, 2, dtype=torch.bool)
    assert torch.equal(normalised(given_BR, torch.zeros(2), mask_BR), given_BR)
    assert torch.equal(normalised(given_BR[1:], torch.ones(1), mask_BR[1:]), given_BR[1:])


def test_boosted_counts_larger_advantages_of_either_sign():
    advantages_BR = torch.tensor([[1.5, 1.0, 1.5, 1.5], [-3.0, -2.0, 1.0, -3.0]])
    mask_BR = torch.tensor([[True, True, True, False]] * 2)
    got_BR = boosted(advantages_BR, torch.tensor([1.0, -2.0]), mask_BR)
    assert got_BR.tolist() == [[True, False, True, False], [True, False, False, False]]
