"""Alignment of tokens with right responses is the inner product of gradients that autograd gives."""

import pytest
import torch

from flowtracer.model import logits as logits_module
from flowtracer.model.logits import LogitReader
from flowtracer.signals.alignment import ResponseAligner
from sampling import sampled_batch, sequence
from tiny import tiny_model


def head_gradients(model, sampled, row, vocabulary):
    """Gradient of each response token's log p with respect to the LM head, over some of its rows; one after another."""
    ids_T, start = sequence(sampled, row)
    log_probs_RV = model(ids_T[None]).logits[0, start - 1 : -1].log_softmax(-1)
    picked_R = log_probs_RV.gather(1, ids_T[start:, None]).squeeze(1)
    gradients = [torch.autograd.grad(value, model.lm_head.weight, retain_graph=True)[0] for value in picked_R]
    return torch.stack([gradient_VD[vocabulary].flatten() for gradient_VD in gradients])


@pytest.mark.parametrize("rows_per_forward", [1, 8])
def test_each_token_moves_the_right_responses_as_its_gradient_says(rows_per_forward, monkeypatch):
    model, sampled = tiny_model(), sampled_batch()
    assert not model.config.tie_word_embeddings
    batch = len(sampled)
    groups_B = torch.zeros(batch, dtype=torch.long)
    right_B = torch.arange(batch) % 2 == 0
    counted_BR = sampled.response_mask_BR.bool()
    vocabulary = sampled.response_ids_BR[counted_BR].unique()
    gradients = [head_gradients(model, sampled, row, vocabulary) for row in range(batch)]
    moved = torch.cat([gradients[row] for row in range(batch) if right_B[row]]).sum(0)
    monkeypatch.setattr(logits_module, "_CHUNK_BYTES", 4 * 1000 * 7)  # a few positions at a time
    aligner = ResponseAligner(LogitReader(model), sampled, rows_per_forward=rows_per_forward)
    got_BR = aligner(groups_B, right_B)
    for row in range(batch):
        expected_R = gradients[row] @ moved
        torch.testing.assert_close(got_BR[row, : len(expected_R)], expected_R, rtol=1e-3, atol=1e-4)
    assert not got_BR[~counted_BR].any()


def test_a_group_without_contrast_is_not_run():
    model, sampled = tiny_model(), sampled_batch()
    reader = LogitReader(model)
    groups_B = torch.arange(len(sampled))
    reader.hidden = None  # would fail if it were called
    assert not ResponseAligner(reader, sampled)(groups_B, torch.ones(len(sampled), dtype=torch.bool)).any()
