"""Sampled sequences as one batch."""

from hypothesis import given
from hypothesis import strategies as st

from flowtracer.signals.sampled import Sampled

IDS = st.lists(st.integers(1, 9), max_size=6)


@given(st.lists(st.tuples(IDS.filter(bool), IDS), min_size=1, max_size=5), st.integers(0, 9))
def test_padding_adds_nothing_and_stands_outside(pairs, pad):
    sampled = Sampled.padded(pairs, pad=pad)
    assert sampled.width == max(len(p) for p, _ in pairs) + max(len(r) for _, r in pairs)
    assert sampled.lengths() == [len(response) for _, response in pairs]
    parts = (
        (sampled.prompt_ids_BP, sampled.prompt_mask_BP, 0),
        (sampled.response_ids_BR, sampled.response_mask_BR, 1),
    )
    for ids_BN, mask_BN, part in parts:
        for row, pair in enumerate(pairs):
            inside = mask_BN[row].bool()
            assert ids_BN[row][inside].tolist() == list(pair[part])
            assert set(ids_BN[row][~inside].tolist()) <= {pad}
    assert bool((sampled.prompt_mask_BP.diff(dim=1) >= 0).all()), "prompts are padded on the left"
    assert bool((sampled.response_mask_BR.diff(dim=1) <= 0).all()), "responses on the right"
