"""Sequences that begin alike: the same panels, and what they share computed once."""

import pytest
import torch

from flowtracer.attention.panels import AttentionPanels
from flowtracer.attention.shared_prefix import SharedPrefixPanels, attention_panels
from flowtracer.flow import CachedPanels
from flowtracer.flow.solve import solve
from flowtracer.model.capture import AttentionReader
from made import random_layers
from tensor_memory import peak_tensor_bytes
from tiny import tiny_model
from tolerances import assert_close

FAMILIES = {
    "llama": {},
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
}


def group(prompt=40, response=25, size=4):
    """Two groups of `size` over one template of 10 tokens; of each group, one response is shorter."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randint(5, 60, shape, generator=generator)  # noqa: E731
    template = draw(10)
    rows = [
        torch.cat([template, asked, draw(response)])
        for asked in (draw(prompt - 10), draw(prompt - 10))
        for _ in range(size)
    ]
    ids_BT = torch.stack(rows)
    mask_BT = torch.ones_like(ids_BT)
    mask_BT[[0, size], -7:] = 0
    return ids_BT * mask_BT, mask_BT


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_panels_are_those_of_each_sequence_for_itself(family, padded, left):
    ids_BT, mask_BT = group()
    if left:
        ids_BT, mask_BT = torch.nn.functional.pad(ids_BT, (3, 0)), torch.nn.functional.pad(mask_BT, (3, 0))
    mask = mask_BT if padded or left else None
    layers = AttentionReader(tiny_model(family, **FAMILIES[family])).read(ids_BT, mask)
    plain, shared = AttentionPanels(layers, panel_rows=16), attention_panels(layers, ids_BT, mask)
    assert isinstance(shared, SharedPrefixPanels)
    for start, stop in ((0, 16), (7, 10), (16, 40), (16, 43), (40, 60), (60, plain.length)):
        assert_close(shared.rows(start, stop), plain.rows(start, stop), torch.float32)


def test_what_is_shared_is_computed_once(monkeypatch):
    ids_BT, _ = group()
    layers = AttentionReader(tiny_model()).read(ids_BT)
    computed = []
    rows = AttentionPanels.rows
    monkeypatch.setattr(
        AttentionPanels, "rows", lambda self, *bound: computed.append((self.batch, *bound)) or rows(self, *bound)
    )
    shared = attention_panels(layers, ids_BT)
    for bound in ((0, 8), (8, 24), (24, 40), (40, 65)):
        assert len(shared.rows(*bound)) == 8
    # All eight share the template, four each a prompt, and nobody a response.
    assert computed == [(1, 0, 8), (2, 8, 24), (2, 24, 40), (8, 40, 65)]


def test_streamed_panels_take_memory_as_long_as_the_text_not_as_its_square():
    def flow(length, kept):
        layers = random_layers(length, heads=2, kv_heads=1, width=8)
        panels = AttentionPanels(layers)
        question_BT, answer_BT = torch.zeros(2, 1, length, dtype=torch.bool)
        question_BT[:, :100], answer_BT[:, -3:] = True, True
        return lambda: solve(CachedPanels(panels) if kept else panels, question_BT, answer_BT)

    short, long, kept = (peak_tensor_bytes(flow(*case)) for case in ((4096, False), (8192, False), (8192, True)))
    assert long < 2.5 * short
    assert kept - long > 8192**2, "half of T^2 float32 is 2 T^2 bytes"
