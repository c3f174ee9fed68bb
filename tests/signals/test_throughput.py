"""Flow over sampled ids: the numbers of the tracer, whatever the padding, the slice and the company."""

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.credit import Readings, Reads
from flowtracer.model.capture import AttentionReader
from flowtracer.model.contributions import layer_reader
from flowtracer.signals.answers import answer_in_response, locate_answers
from flowtracer.signals.passes import run_forwards
from flowtracer.signals.throughput import PendingFlow
from flowtracer.text.answer import Miss
from sampling import RESPONSES, sampled_batch
from tiny import tiny_model, tiny_tokenizer

PROMPTS = ["what is 3 + 4?", "Ann has 3 apples and buys 4 more. How many?", "q"]


def read_flow(reader, sampled, answer_BR, *, rows_per_forward=8, every_rank_alike=False, **reads):
    pending = PendingFlow(reader, sampled, answer_BR, Reads(**reads))
    run_forwards([pending], rows_per_forward=rows_per_forward, every_rank_alike=every_rank_alike)
    flow = pending.add_to(Readings()).flow
    return flow.throughput_BR, flow.traced_B


def flow_of(model, sampled, *, capacity="attention", graph="tokens", **options):
    answers, _ = locate_answers(tiny_tokenizer(), sampled)
    reader = layer_reader(model, capacity=capacity, graph=graph)
    return read_flow(reader, sampled, answers.answer_BR, capacity=capacity, graph=graph, **options)


@pytest.mark.parametrize("at", ["token", "prediction"])
@pytest.mark.parametrize("options", [{}, {"rows_per_forward": 1}, {"rows_per_forward": 2, "every_rank_alike": True}])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_throughput_is_that_of_the_tracer(at, options, family):
    sizes = {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4} if family == "gpt2" else {}
    model, tokenizer = tiny_model(family, **sizes), tiny_tokenizer()
    throughput_BR, traced_B = flow_of(model, sampled_batch(), at=at, **options)
    assert traced_B.tolist() == [True, True, False]
    assert not throughput_BR[2].any()
    tracer = ft.Tracer(model, tokenizer, at=at)
    for row, (prompt, response) in enumerate(zip(PROMPTS[:2], RESPONSES, strict=False)):
        trace = tracer.trace(prompt, response)
        expected = trace.throughput[trace.response.start :]
        np.testing.assert_allclose(throughput_BR[row, : len(expected)], expected, atol=1e-5)


@pytest.mark.parametrize("ends", ["anywhere", "question"])
@pytest.mark.parametrize(
    ("capacity", "graph"),
    [("value", "tokens"), ("alti", "tokens"), ("attention", "layered"), ("value", "layered"), ("alti", "layered")],
)
def test_any_capacity_and_graph_are_those_of_the_tracer(capacity, graph, ends):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    options = {"capacity": capacity, "graph": graph, "ends": ends}
    throughput_BR, traced_B = flow_of(model, sampled_batch(), rows_per_forward=2, **options)
    assert traced_B.tolist() == [True, True, False]
    tracer = ft.Tracer(model, tokenizer, **options)
    for row, (prompt, response) in enumerate(zip(PROMPTS[:2], RESPONSES, strict=False)):
        trace = tracer.trace(prompt, response)
        expected = trace.throughput[trace.response.start :]
        np.testing.assert_allclose(throughput_BR[row, : len(expected)], expected, atol=1e-5)


def test_no_answer_anywhere_needs_no_forward():
    model = tiny_model()
    reader = AttentionReader(model)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    sampled = sampled_batch([2])
    answers, misses = locate_answers(tiny_tokenizer(), sampled)
    assert misses == {"no_answer": 1}
    _, traced_B = read_flow(reader, sampled, answers.answer_BR)
    assert not calls
    assert not traced_B.any()
    read_flow(reader, sampled, answers.answer_BR, every_rank_alike=True)
    assert calls == [1], "a rank with nothing to trace keeps step with the others"


def test_nan_in_one_row_leaves_the_others_alone():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    sampled = sampled_batch()
    reader = AttentionReader(model)
    answer_BR = locate_answers(tokenizer, sampled)[0].answer_BR
    good_BR, _ = read_flow(reader, sampled, answer_BR)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("☃")["input_ids"]] = float("nan")
    sampled.prompt_ids_BP[0, -1] = tokenizer("☃")["input_ids"][0]
    throughput_BR, traced_B = read_flow(reader, sampled, answer_BR)
    assert traced_B.tolist() == [False, True, False]
    torch.testing.assert_close(throughput_BR[1], good_BR[1])


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
        assert tokenizer.decode(ids[found[1].start : found[1].stop]).strip() == answer


@pytest.mark.parametrize(
    ("text", "target", "reasoning", "answer"),
    [
        (r"so \boxed{7} or \boxed{8}.", "box", "so", "7"),
        (r"so \boxed{7} or \boxed{8}.", "answer", r"so \boxed{7} or", "8"),
        ("so <answer>7</answer>", "answer", "so", "7"),
        ("so it is\n#### 7", "answer", "so it is", "7"),
        ("so the answer is 7.", "answer", "so the answer is", "7"),
    ],
)
def test_reasoning_ends_where_the_answer_opens(text, target, reasoning, answer):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text)["input_ids"]
    whole, found = answer_in_response(tokenizer, ids, target)
    assert tokenizer.decode(ids[: whole.start]).strip() == reasoning
    assert whole.stop == found.stop + (target == "box")
    assert target == "answer" or tokenizer.decode(ids[whole.start : whole.stop]).strip() == r"\boxed{7}"
    assert tokenizer.decode(ids[found.start : found.stop]).strip(" {}>") == answer
