"""Flow over sampled ids: the numbers of the tracer, whatever the padding, the slice and the company."""

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.answer import Miss
from flowtracer.capture import AttentionReader
from flowtracer.rl.rollout_flow import answer_in_response, rollout_flow
from tiny import tiny_model, tiny_tokenizer

PROMPTS = ["what is 3 + 4?", "Ann has 3 apples and buys 4 more. How many?", "q"]
RESPONSES = ["3 + 4 = 7.\nA: 7<|end|>", "First add.\nThe answer is 7. Yes.<|end|>", "no idea<|end|>"]


def batch():
    tokenizer = tiny_tokenizer()
    prompts = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    responses = tokenizer(RESPONSES, padding=True, padding_side="right", return_tensors="pt")
    names = ("input_ids", "attention_mask")
    return [*(prompts[n] for n in names), *(responses[n] for n in names)]


@pytest.mark.parametrize("at", ["token", "prediction"])
@pytest.mark.parametrize("options", [{}, {"rows_per_forward": 1}, {"rows_per_forward": 2, "every_rank_alike": True}])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_throughput_is_that_of_the_tracer(at, options, family):
    sizes = {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4} if family == "gpt2" else {}
    model, tokenizer = tiny_model(family, **sizes), tiny_tokenizer()
    flow = rollout_flow(AttentionReader(model), tokenizer, *batch(), at=at, **options)
    assert flow.traced_B.tolist() == [True, True, False]
    assert flow.misses == {"no_answer": 1}
    assert not flow.throughput_BR[2].any()
    tracer = ft.Tracer(model, tokenizer, at=at)
    for row, (prompt, response) in enumerate(zip(PROMPTS[:2], RESPONSES, strict=False)):
        trace = tracer.trace(prompt, response)
        expected = trace.throughput[trace.response.start :]
        np.testing.assert_allclose(flow.throughput_BR[row, : len(expected)], expected, atol=1e-5)


def test_no_answer_anywhere_needs_no_forward():
    model = tiny_model()
    reader = AttentionReader(model)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    prompt_ids, prompt_mask, ids, mask = batch()
    rows = slice(2, 3)
    flow = rollout_flow(reader, tiny_tokenizer(), prompt_ids[rows], prompt_mask[rows], ids[rows], mask[rows])
    assert not calls
    assert not flow.traced_B.any()
    rollout_flow(
        reader, tiny_tokenizer(), prompt_ids[rows], prompt_mask[rows], ids[rows], mask[rows], every_rank_alike=True
    )
    assert calls == [1], "a rank with nothing to trace keeps step with the others"


def test_nan_in_one_row_leaves_the_others_alone():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    reader = AttentionReader(model)
    prompt_ids, prompt_mask, ids, mask = batch()
    good = rollout_flow(reader, tokenizer, prompt_ids, prompt_mask, ids, mask)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("☃")["input_ids"]] = float("nan")
    poisoned = prompt_ids.clone()
    poisoned[0, -1] = tokenizer("☃")["input_ids"][0]
    flow = rollout_flow(reader, tokenizer, poisoned, prompt_mask, ids, mask)
    assert flow.traced_B.tolist() == [False, True, False]
    assert flow.misses["no_flow"] == 1
    torch.testing.assert_close(flow.throughput_BR[1], good.throughput_BR[1])


@pytest.mark.parametrize(
    ("text", "answer"),
    [("A: 7<|end|>", "7"), ("A: 7", "7"), ("A: 7<|end|><|pad|>", "7"), ("", None), ("<|end|>", None)],
)
def test_end_of_text_is_no_part_of_the_answer(text, answer):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    found = answer_in_response(tokenizer, ids)
    if answer is None:
        assert found is Miss.EMPTY_RESPONSE
    else:
        assert tokenizer.decode(ids[found.start : found.stop]).strip() == answer
