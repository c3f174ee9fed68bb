"""Per-token entropies and log-probabilities: the model's own, in chunks of any size."""

import pytest
import torch

from flowtracer.errors import CaptureError
from flowtracer.model import logits as logits_module
from flowtracer.model.logits import LogitReader
from flowtracer.signals.logits import output_gradients, token_logits
from sampling import sampled_batch, sequence
from tiny import tiny_model

FAMILIES = {
    "llama": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma2": {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_scores_as_in_the_models_own_logits(family):
    model, sampled = tiny_model(family, **FAMILIES[family]), sampled_batch()
    entropy_BR, log_prob_BR = token_logits(LogitReader(model), sampled, temperature=0.7, rows_per_forward=2)
    for row in range(len(sampled)):
        ids_T, start = sequence(sampled, row)
        with torch.no_grad():
            expected_RV = (model(ids_T[None]).logits[0, start - 1 : -1] / 0.7).log_softmax(-1)
        n = len(expected_RV)
        got = log_prob_BR[row, :n]
        torch.testing.assert_close(got, expected_RV.gather(1, ids_T[start:, None]).squeeze(1), rtol=1e-4, atol=1e-4)
        expected_R = torch.distributions.Categorical(logits=expected_RV).entropy()
        torch.testing.assert_close(entropy_BR[row, :n], expected_R, rtol=1e-4, atol=1e-4)
        assert not entropy_BR[row, n:].any()
        assert not log_prob_BR[row, n:].any()


def test_output_gradients_are_those_of_each_tokens_own_row():
    model, sampled = tiny_model(), sampled_batch()
    got_BRD = output_gradients(LogitReader(model), sampled, rows_per_forward=2)
    ids_T, start = sequence(sampled, 1)
    log_probs_RV = model(ids_T[None]).logits[0, start - 1 : -1].log_softmax(-1)
    for t in (0, 3, len(ids_T) - start - 1):
        token = ids_T[start + t]
        (gradient_VD,) = torch.autograd.grad(log_probs_RV[t, token], model.lm_head.weight, retain_graph=True)
        torch.testing.assert_close(got_BRD[1, t], gradient_VD[token], rtol=1e-3, atol=1e-5)
    assert not got_BRD[~sampled.response_mask_BR.bool()].any()


def test_chunks_change_nothing(monkeypatch):
    reader, sampled = LogitReader(tiny_model()), sampled_batch()
    whole = token_logits(reader, sampled)
    monkeypatch.setattr(logits_module, "_CHUNK_BYTES", 1)
    assert list(reader.chunks(3)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    for one, other in zip(token_logits(reader, sampled, rows_per_forward=1), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_mode_of_the_model_is_kept():
    model = tiny_model().train()
    token_logits(LogitReader(model), sampled_batch())
    assert model.training


def test_a_head_that_is_not_understood_is_refused():
    model = tiny_model()
    original = model.forward

    def forward(*args, **kwargs):
        output = original(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = forward
    with pytest.raises(CaptureError, match="LM head"):
        LogitReader(model)
