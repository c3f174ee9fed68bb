"""Gradients at the embeddings against finite differences, and alone as in a batch."""

import pytest
import torch

from flowtracer.model.logits import LogitReader
from flowtracer.signals.answers import locate_answers
from flowtracer.signals.gradients import NOISE, read_influence, read_saliency
from sampling import sampled_batch, sequence
from tiny import tiny_model, tiny_tokenizer

SEEDS = (5, 6, 7)


@pytest.fixture
def model():
    # GPT-2 runs in float64 throughout; the norms of llama go through float32, too coarse for finite differences.
    return tiny_model("gpt2", n_positions=512, n_embd=32, n_layer=4, n_head=4).double()


def answer_log_prob(model, embeddings_TD, ids_T, answer):
    logits_TV = model(inputs_embeds=embeddings_TD[None]).logits[0].log_softmax(-1)
    return sum(logits_TV[t - 1, ids_T[t]] for t in answer)


def test_saliency_is_gradient_times_embedding(model):
    sampled = sampled_batch()
    answers, _ = locate_answers(tiny_tokenizer(), sampled)
    here_BR, before_BR = read_saliency(LogitReader(model), sampled, answers.answer_BR, rows_per_forward=2)
    assert not here_BR[2].any(), "no answer"
    for row in range(2):
        ids_T, start = sequence(sampled, row)
        embeddings_TD = model.get_input_embeddings()(ids_T).detach()
        answer = [start + int(t) for t in answers.answer_BR[row].nonzero()]
        for t in (start - 1, start, start + 3):
            products = []
            for d in range(embeddings_TD.shape[1]):
                moved = [embeddings_TD.clone(), embeddings_TD.clone()]
                moved[0][t, d] += 1e-4
                moved[1][t, d] -= 1e-4
                with torch.no_grad():
                    up, down = (answer_log_prob(model, e, ids_T, answer) for e in moved)
                products.append(float((down - up) / 2e-4 * embeddings_TD[t, d]))
            expected = torch.tensor(products).norm()
            if t >= start:
                torch.testing.assert_close(here_BR[row, t - start], expected.float(), rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(before_BR[row, t - start + 1], expected.float(), rtol=1e-3, atol=1e-5)


def test_saliency_is_of_logits_over_the_temperature(model):
    sampled = sampled_batch()
    answer_BR = locate_answers(tiny_tokenizer(), sampled)[0].answer_BR
    _, warm_BR = read_saliency(LogitReader(model), sampled, answer_BR, temperature=2.0)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight / 2)
    _, expected_BR = read_saliency(LogitReader(model), sampled, answer_BR)
    torch.testing.assert_close(warm_BR, expected_BR, rtol=1e-5, atol=1e-9)
    assert warm_BR.abs().max() > 0


def test_influence_is_the_derivative_of_the_divergence(model):
    sampled = sampled_batch([0], responses=["3 + 4 = 7.\nA: 7129 <|end|>"])
    answers, _ = locate_answers(tiny_tokenizer(), sampled)
    reader = LogitReader(model)
    got_BR = read_influence(reader, sampled, answers.answer_BR, answers.reasoning_BR, SEEDS[:1])
    ids_T, start = sequence(sampled, 0)
    clean_TD = model.get_input_embeddings()(ids_T).detach()
    reasoning = [start + int(t) for t in answers.reasoning_BR[0].nonzero()]
    predicting = [start + int(t) - 1 for t in answers.answer_BR[0].nonzero()]
    assert len(predicting) > 1, "a mean of logits"
    noise_TD = torch.zeros_like(clean_TD)
    noise_TD[reasoning] = NOISE * torch.randn(
        len(reasoning), clean_TD.shape[1], generator=torch.Generator().manual_seed(SEEDS[0])
    ).to(clean_TD)

    def divergence(embeddings_TD):
        with torch.no_grad():
            p, q = (
                model(inputs_embeds=e[None]).logits[0, predicting].mean(0).log_softmax(-1)
                for e in (clean_TD, embeddings_TD)
            )
        return float((p.exp() * (p - q)).sum())

    for t in reasoning[:3]:
        step_TD = torch.zeros_like(clean_TD)
        step_TD[t] = clean_TD[t] * 1e-4
        slope = (divergence(clean_TD + noise_TD + step_TD) - divergence(clean_TD + noise_TD - step_TD)) / 2e-4
        assert float(got_BR[0, t - start]) == pytest.approx(abs(slope), rel=2e-2, abs=1e-9)
    assert got_BR[0, ~answers.reasoning_BR[0]].abs().max() == 0


def test_a_row_alone_is_the_row_of_a_batch(model):
    batch, alone = sampled_batch(), sampled_batch([1])
    reader, tokenizer = LogitReader(model), tiny_tokenizer()
    (found, _), (own, _) = locate_answers(tokenizer, batch), locate_answers(tokenizer, alone)
    width = alone.response_ids_BR.shape[1]
    pairs = zip(
        (
            *read_saliency(reader, batch, found.answer_BR),
            read_influence(reader, batch, found.answer_BR, found.reasoning_BR, SEEDS),
        ),
        (
            *read_saliency(reader, alone, own.answer_BR),
            read_influence(reader, alone, own.answer_BR, own.reasoning_BR, SEEDS[1:2]),
        ),
        strict=True,
    )
    for together, by_itself in pairs:
        assert by_itself.abs().max() > 0
        torch.testing.assert_close(together[1:2, :width], by_itself, rtol=1e-4, atol=1e-9)


def test_no_gradient_is_left_behind(model):
    sampled = sampled_batch()
    answers, _ = locate_answers(tiny_tokenizer(), sampled)
    model.train()
    read_saliency(LogitReader(model), sampled, answers.answer_BR)
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert not model.get_input_embeddings()._forward_hooks
