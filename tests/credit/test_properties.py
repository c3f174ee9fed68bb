"""What holds for every strategy, whatever the signals."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given as given_all
from hypothesis import settings
from hypothesis import strategies as st

from credit_cases import change_tensors, random_signals, tensors_of
from flowtracer.credit import CREDITS, NEEDS, make_credit, needs_of, token_factors

# Their statistics run over the batch or over the group, as their sources have it.
OF_THE_BATCH = {
    *("entropy_8020", "correlation", "likelihood_gain", "confidence", "delta", "flow_contrast", "visual_mask"),
    *("nthr", "thr"),
}
NOT_FACTORS = {"likelihood_gain", "progress", "confidence"}
BOOSTS = {
    *("random", "position", "shuffled", "flow", "entropy", "attention", "local", "global", "gradient"),
    *("correlation", "flow_contrast", "free_flow", "visual_robust"),
}
# A response whose tokens are all masked, as a truncated one's may be, counts none.
LENGTHS = st.lists(st.integers(0, 14), min_size=1, max_size=5).filter(any)
SEED = st.integers(0, 2**20)


def given(*drawn):
    """Fewer examples than elsewhere: all strategies share each test."""
    return lambda test: settings(max_examples=15)(given_all(*drawn)(test))


every_credit = pytest.mark.parametrize("name", sorted(CREDITS))


@every_credit
@given(LENGTHS, SEED)
def test_advantages_are_finite_and_nothing_is_changed_in_place(name, lengths, seed):
    signals, kept = random_signals(lengths, seed), random_signals(lengths, seed)
    got_BR = make_credit(name)(signals)
    assert got_BR.shape == signals.mask_BR.shape
    assert got_BR.dtype == signals.advantages_B.dtype
    assert got_BR[signals.mask_BR].isfinite().all()
    for value, before in zip(tensors_of(signals), tensors_of(kept), strict=True):
        assert torch.equal(value, before)


@every_credit
@given(LENGTHS, SEED)
def test_a_batch_of_one_is_a_row_of_a_batch(name, lengths, seed):
    if name in OF_THE_BATCH:
        return
    signals = random_signals(lengths, seed)
    together_BR = make_credit(name)(signals)
    for row in range(len(lengths)):
        alone = change_tensors(replace(signals, seeds_B=signals.seeds_B[row : row + 1]), lambda x: x[row : row + 1])  # noqa: B023
        own_BR = make_credit(name)(alone)
        torch.testing.assert_close(own_BR[alone.mask_BR], together_BR[row][signals.mask_BR[row]])


@every_credit
@given(LENGTHS, SEED)
def test_padding_changes_nothing(name, lengths, seed):
    signals = random_signals(lengths, seed)

    def pad(value):
        fill = 0 if value.dtype == torch.bool else 7
        behind = (0, 0) * (value.ndim - 2) + (0, 3)
        return value if value.ndim == 1 else torch.nn.functional.pad(value, behind, value=fill)

    padded = change_tensors(signals, pad)
    wide_BR = make_credit(name)(padded)[:, :-3]
    torch.testing.assert_close(wide_BR[signals.mask_BR], make_credit(name)(signals)[signals.mask_BR])


@every_credit
@given(LENGTHS, SEED)
def test_only_counted_tokens_are_read(name, lengths, seed):
    signals = random_signals(lengths, seed)
    off_BR = ~signals.mask_BR

    def disturb(value):
        if value.ndim == 1 or value.dtype == torch.bool:
            return value
        return torch.where(off_BR if value.ndim == 2 else off_BR[..., None], torch.full_like(value, 99), value)

    got_BR, other_BR = make_credit(name)(signals), make_credit(name)(change_tensors(signals, disturb))
    torch.testing.assert_close(other_BR[signals.mask_BR], got_BR[signals.mask_BR])


@pytest.mark.parametrize("name", sorted(set(CREDITS) - NOT_FACTORS))
@given(LENGTHS, SEED)
def test_factors_scale_with_the_advantage_and_keep_its_sign(name, lengths, seed):
    signals = random_signals(lengths, seed)
    got_BR = make_credit(name)(signals)
    doubled_BR = make_credit(name)(replace(signals, advantages_B=2 * signals.advantages_B))
    torch.testing.assert_close(doubled_BR, 2 * got_BR)
    assert (token_factors(got_BR, signals.advantages_B)[signals.mask_BR] >= 0).all()
    silent_BR = make_credit(name)(replace(signals, advantages_B=torch.zeros(len(lengths))))
    assert not silent_BR.any(), "a response without an advantage teaches nothing"


@pytest.mark.parametrize("name", sorted(BOOSTS))
@given(LENGTHS, SEED, st.floats(0.05, 1))
def test_boosts_hit_a_fixed_share_or_nothing(name, lengths, seed, ratio):
    signals = replace(random_signals(lengths, seed), advantages_B=torch.ones(len(lengths)))
    factors_BR = make_credit(name, {"ratio": ratio, "gamma": 2.0})(signals)
    for row, n in enumerate(lengths):
        boosted = int((factors_BR[row, :n] == 2).sum())
        assert int((factors_BR[row, :n] == 1).sum()) == n - boosted
        assert boosted in (0, -int(-(n * ratio - 1e-9) // 1))


@given(LENGTHS, SEED)
def test_factors_whose_mean_is_promised(lengths, seed):
    signals = replace(random_signals(lengths, seed), advantages_B=torch.ones(len(lengths)))
    oar_BR = make_credit("oar")(signals)
    soft_BR = make_credit("attention_entropy")(signals)
    for row, n in [(row, n) for row, n in enumerate(lengths) if n]:
        assert float(oar_BR[row, :n].mean()) == pytest.approx(1, abs=1e-5)
        assert (oar_BR[row][~signals.answer.reasoning_BR[row]] == 1).all()
        assert float(soft_BR[row, :n].mean()) == pytest.approx(1, abs=1e-5)
    kept_BR = make_credit("entropy_8020")(signals)
    assert float(kept_BR[signals.mask_BR].mean()) == pytest.approx(1, abs=1e-5)
    both = replace(signals, advantages_B=torch.where(torch.arange(len(lengths)) % 2 == 0, 1.0, -2.0))
    factors_BR = make_credit("delta").factors(both)
    assert float(factors_BR[signals.mask_BR].mean()) == pytest.approx(1, abs=1e-5)
    credit = make_credit("likelihood_gain")
    moved_BR, prefix_BR = credit(signals), credit.prefix(signals)
    for row in prefix_BR.any(-1).nonzero().squeeze(-1).tolist():
        assert float(moved_BR[row][prefix_BR[row]].mean()) == pytest.approx(1, abs=1e-5)


@every_credit
def test_what_a_strategy_needs_is_what_it_reads(name):
    credit = make_credit(name)
    needs = needs_of(credit)
    signals = random_signals([6, 9, 4], 3)

    def without(names):
        return replace(signals, readings=replace(signals.readings, **dict.fromkeys(names)))

    alone_BR = credit(without(set(NEEDS) - needs))
    torch.testing.assert_close(alone_BR, credit(signals), equal_nan=True)
    for need in needs:
        with pytest.raises(ValueError, match=f"needs {need}"):
            credit(without([need]))
