import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.rl.advantages import boosted_share, normalised, weighted_advantages


def test_factors_of_one_leave_advantages_to_the_bit():
    advantages_B = torch.randn(6)
    weighted_BR = weighted_advantages(advantages_B, torch.ones(6, 9))
    assert all(torch.equal(weighted_BR[:, t], advantages_B) for t in range(9))


def test_sign_is_kept():
    weighted_BR = weighted_advantages(torch.tensor([1.0, -2.0]), torch.tensor([[1.5, 1.0], [1.5, 1.0]]))
    assert weighted_BR.tolist() == [[1.5, 1.0], [-3.0, -2.0]]


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32))
def test_normalised_factors_have_mean_one(batch, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    weights_BR = torch.rand(batch, tokens, generator=generator, dtype=torch.float64) + 0.1
    mask_BR = torch.rand(batch, tokens, generator=generator) < 0.7
    scaled_BR = normalised(weights_BR, mask_BR)
    for row in range(batch):
        counted = scaled_BR[row][mask_BR[row]]
        assert not len(counted) or abs(float(counted.mean()) - 1) < 1e-12
    ratio = scaled_BR / weights_BR
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio))


def test_boosted_share_counts_masked_tokens_only():
    weights_BR = torch.tensor([[1.5, 1.0, 1.5, 1.5]])
    mask_BR = torch.tensor([[True, True, True, False]])
    assert float(boosted_share(weights_BR, mask_BR)) == torch.tensor(2 / 3)
    assert float(boosted_share(weights_BR, torch.zeros_like(mask_BR))) == 0
