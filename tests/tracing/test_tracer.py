"""The tracer on tiny models: what comes out is right, whatever the batch, and what cannot be traced is named."""

import copy

import numpy as np
import pytest
import sentencepiece
import torch
from transformers import SentencePieceBackend

import flowtracer as ft
from families import EAGER_ONLY
from flowtracer.attention.panels import AttentionPanels
from flowtracer.errors import CaptureError, InputError, TraceError
from flowtracer.flow import CachedPanels
from flowtracer.flow.solve import within_budget
from tiny import CORPUS, tiny_model, tiny_tokenizer

PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys 4 more. How many?"}]
RESPONSES = [
    "3 + 4 = 7.\nSo the answer is \\boxed{7}. Done.",
    "First add the numbers.\nThen 12 * 5 = 60.\n#### 60",
    "<answer>18</answer>",
]


@pytest.fixture(scope="module")
def tracer():
    return ft.Tracer(tiny_model(), tiny_tokenizer())


def rollouts():
    return [ft.Rollout(prompt=PROMPT, response=r, id=str(i)) for i, r in enumerate(RESPONSES)]


def assert_same(one, other, atol=1e-6):
    np.testing.assert_array_equal(one.token_ids, other.token_ids)
    for name in ("reach", "flow", "source", "fan_in", "fan_out", "step_flow", "head_flow", "expected_flow"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=atol, rtol=1e-4, err_msg=name)


def test_a_trace_says_where_everything_is(tracer):
    trace = tracer.trace(PROMPT, RESPONSES[0])
    assert trace.slice_text(trace.question).endswith("assistant\n")
    assert trace.slice_text(trace.response) == RESPONSES[0]
    assert "7" in trace.slice_text(trace.answer)
    assert (trace.answer_text, trace.answer_rule) == ("7", "boxed")
    assert "".join(trace.tokens) == trace.text
    assert [step.text for step in trace.steps()][1:] == [
        "3 + 4 = 7.\n",
        "So the answer is \\boxed{7}. ",
        "Done.",
    ]


def test_flow_is_conserved_and_ends_at_the_answer(tracer):
    trace = tracer.trace(PROMPT, RESPONSES[0])
    assert trace.conservation_error() < 1e-9
    assert trace.flow[trace.answer.start : trace.answer.stop].sum() == pytest.approx(1)
    assert not trace.flow[trace.answer.stop :].any()
    steps = trace.steps()
    assert sum(step.inflow for step in steps) - sum(step.outflow for step in steps) == pytest.approx(1)


def test_a_trace_is_that_of_the_eager_maps(tracer):
    trace = tracer.trace(PROMPT, RESPONSES[1])
    eager = tiny_model()
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        maps = eager(torch.from_numpy(trace.token_ids)[None], output_attentions=True).attentions
    attention_TT = torch.stack([maps[layer][0].mean(0) for layer in trace.layers]).mean(0)
    masks = [torch.from_numpy(span.mask(len(trace))) for span in (trace.question, trace.answer)]
    result = ft.compute_flow(attention_TT, *masks, implementation="reference")
    np.testing.assert_allclose(trace.flow, result.flow_T, atol=1e-6)
    np.testing.assert_allclose(trace.throughput, result.throughput_T, atol=1e-6)


def heads_of_eager_maps(model, trace, layers, heads):
    """Share of each (layer, head) in every edge's capacity, and in the flow over all edges, from whole maps."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        maps = eager(torch.from_numpy(trace.token_ids)[None], output_attentions=True).attentions
    by_head = np.stack([maps[layer][0, list(heads)].double().numpy() for layer in layers])
    capacity = np.tril(by_head.sum((0, 1)), -1)
    shares = by_head[:, :, trace.edges.target, trace.edges.source] / capacity[trace.edges.target, trace.edges.source]
    flow = np.zeros_like(capacity)
    flow[trace.edges.target, trace.edges.source] = trace.edges.flow
    per_head = (by_head * np.divide(flow, capacity, out=np.zeros_like(flow), where=capacity > 0)).sum((2, 3))
    return shares, per_head / per_head.sum()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gemma2", "gpt_oss", "gpt2"])
@pytest.mark.parametrize("chosen", [None, (0, 2, 3)])
def test_heads_are_those_of_the_eager_maps(family, chosen):
    sizes = {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4} if family == "gpt2" else {}
    sizes |= {"num_local_experts": 2, "num_experts_per_tok": 1} if family == "gpt_oss" else {}
    model = tiny_model(family, **sizes)
    if family in EAGER_ONLY:
        model.set_attn_implementation("eager")
    tracer = ft.Tracer(model, tiny_tokenizer(), layers=[1, 3], heads=chosen)
    together = tracer.trace_batch(rollouts())
    for trace in (*together, tracer.trace(PROMPT, RESPONSES[1])):
        assert trace.edges.complete
        heads = chosen or (0, 1, 2, 3)
        shares, flow = heads_of_eager_maps(model, trace, (1, 3), heads)
        expected = np.sort(shares.reshape(-1, len(trace.edges)), 0)[:-4:-1].T
        np.testing.assert_allclose(trace.edge_head_shares, expected, atol=2e-4)
        layer, head = trace.edge_heads[..., 0], trace.edge_heads[..., 1]
        named = shares[np.searchsorted((1, 3), layer), np.searchsorted(heads, head), np.arange(len(layer))[:, None]]
        np.testing.assert_allclose(named, expected, atol=2e-4)
        np.testing.assert_allclose(trace.head_flow[:, list(heads)], flow, atol=1e-5)
        assert trace.head_flow.sum() == pytest.approx(1)
        assert not np.delete(trace.head_flow, heads, 1).any()


def test_flow_by_head_counts_the_edges_that_were_cut_too(tracer):
    whole = tracer.trace(PROMPT, RESPONSES[1])
    cut = ft.Tracer(tiny_model(), tiny_tokenizer(), max_edges=50).trace(PROMPT, RESPONSES[1])
    np.testing.assert_allclose(cut.head_flow, whole.head_flow, atol=1e-6)
    np.testing.assert_array_equal(cut.edge_heads, whole.edge_heads[:50])


def test_heads_that_nobody_asked_for_are_not_looked_at():
    trace = ft.Tracer(tiny_model(), tiny_tokenizer(), heads_per_edge=0).trace(PROMPT, RESPONSES[1])
    assert trace.edge_heads.shape == (len(trace.edges), 0, 2)
    assert not trace.head_flow.size
    few = ft.Tracer(tiny_model(), tiny_tokenizer(), layers=[1], heads=[2], heads_per_edge=3).trace(PROMPT, RESPONSES[1])
    assert few.edge_heads[0].tolist() == [[1, 2]]
    np.testing.assert_allclose(few.edge_head_shares, 1, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("options", [{"max_tokens": 4096}, {"max_tokens": 4096, "pack": True}, {"max_tokens": 1}])
def test_batches_give_the_numbers_of_each_one_alone(family, options):
    sizes = {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4} if family == "gpt2" else {}
    tracer = ft.Tracer(tiny_model(family, **sizes), tiny_tokenizer())
    for alone, together in zip(
        [tracer.trace(PROMPT, r) for r in RESPONSES], tracer.trace_batch(rollouts(), **options), strict=True
    ):
        assert_same(alone, together)


def sampled(response, end="<|end|>"):
    """A rollout as tokens that no encoding of its text would give: every character on its own."""
    tokenizer = tiny_tokenizer()
    text = tokenizer.apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    pieces = [tokenizer(character, add_special_tokens=False)["input_ids"] for character in response]
    ids = [*(token for piece in pieces for token in piece), *tokenizer(end)["input_ids"]]
    return tokenizer(text)["input_ids"], ids


def test_sampled_tokens_are_traced_as_they_are(tracer):
    prompt_ids, response_ids = sampled("3 + 4 = 7.\nA: 7")
    rollout = ft.Rollout(prompt="", response="", token_ids=(prompt_ids, response_ids))
    trace = tracer.trace_batch([rollout])[0]
    assert trace.token_ids.tolist() == [*prompt_ids, *response_ids]
    assert (trace.question.stop, trace.response.start) == (len(prompt_ids), len(prompt_ids))
    assert trace.slice_text(trace.response) == "3 + 4 = 7.\nA: 7<|end|>"
    assert trace.slice_text(trace.answer) == "7"
    assert trace.answer.stop == len(trace) - 1, "the end of text is no part of the answer"
    assert trace.conservation_error() < 1e-9
    text = tracer.trace(PROMPT, RESPONSES[0])
    ids, first = text.token_ids.tolist(), text.response.start
    again = ft.Rollout(prompt="", response="", token_ids=(ids[:first], ids[first:]))
    assert_same(text, tracer.trace_batch([again])[0])


def test_sampled_tokens_without_an_answer_are_named(tracer):
    prompt_ids, response_ids = sampled("", end="<|end|>")
    for ids in ([], response_ids):
        skipped = tracer.trace_batch([ft.Rollout(prompt="", response="", token_ids=(prompt_ids, ids))])[0]
        assert skipped.reason == "empty_response"


def test_results_stand_in_the_order_of_the_rollouts(tracer):
    results = tracer.trace_batch([*rollouts(), ft.Rollout(prompt=PROMPT, response="", id="3")])
    assert [r.metadata["id"] if isinstance(r, ft.Trace) else r.id for r in results] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("prompt", "response", "answer", "reason"),
    [
        (PROMPT, "", None, "empty_response"),
        (PROMPT, "   \n", None, "empty_response"),
        (PROMPT, "I do not know.", None, "no_answer"),
        (PROMPT, "so \\boxed{7", None, "unclosed_box"),
        (PROMPT, "so it is 7", "8", "answer_not_in_text"),
        (PROMPT, "so \ud800 it is \\boxed{7}", None, "invalid_unicode"),
        ([{"role": "oracle", "content": "q"}], "so it is \\boxed{7}", None, "bad_messages"),
        ("", "so it is \\boxed{7}", None, "empty_prompt"),
        ("x " * 600, "so it is \\boxed{7}", None, "too_long"),
    ],
)
def test_what_cannot_be_traced_has_a_named_reason(tracer, prompt, response, answer, reason):
    with pytest.raises(TraceError, match="expected") as caught:
        tracer.trace(prompt, response, answer)
    assert caught.value.reason == reason
    skipped, good = tracer.trace_batch(
        [ft.Rollout(prompt=prompt, response=response, answer=answer, id="bad"), *rollouts()[:1]]
    )
    assert (skipped.id, skipped.reason) == ("bad", reason)
    assert isinstance(good, ft.Trace), "a bad rollout must not stop the others"


def test_an_answer_at_the_very_start(tracer):
    trace = tracer.trace(PROMPT, "7 it is", answer="7")
    assert trace.answer.start == trace.response.start
    assert not trace.hubs()
    assert "straight from the prompt" in trace.summary()


def test_a_step_begins_with_its_first_word_though_tokenizers_spell_the_space_before_it_too(tracer):
    steps = ["So she has 3.", "Then buys 4 more.", "The answer is 7."]
    trace = tracer.trace(PROMPT, " ".join(steps))
    assert any(token.startswith(" ") and len(token) > 1 for token in trace.tokens)
    assert [trace.slice_text(span).strip() for span in trace.step_spans[1:]] == steps


def test_what_place_alone_would_carry_ends_in_the_answer_as_well(tracer):
    for trace in tracer.trace_batch(rollouts()):
        assert trace.expected_flow[trace.sink.start : trace.sink.stop].sum() == pytest.approx(1)
        assert (trace.expected_flow[trace.sink.stop :] == 0).all()
        assert all(hub.expected > 0 for hub in trace.hubs())


def test_prediction_ends_one_position_before_the_answer():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer(), at="prediction")
    trace = tracer.trace(PROMPT, RESPONSES[0])
    assert (trace.sink.start, trace.sink.stop) == (trace.answer.start - 1, trace.answer.stop - 1)
    assert trace.flow[trace.sink.start : trace.sink.stop].sum() == pytest.approx(1)


def test_the_shortest_rollout_there_is():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer(), at="prediction")
    trace = tracer.trace("q", "7", answer="7")
    assert len(trace) == 2
    assert trace.flow.tolist() == [1.0, 0.0]


def test_the_flow_can_start_at_the_users_message():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer(), question="user")
    trace = tracer.trace([{"role": "system", "content": "Be brief."}, *PROMPT], RESPONSES[0])
    assert trace.slice_text(trace.question) == PROMPT[0]["content"]
    with pytest.raises(InputError, match="chat messages"):
        tracer.trace("text", RESPONSES[0])


def test_layers_and_heads_are_chosen():
    model = tiny_model()
    trace = ft.Tracer(model, tiny_tokenizer(), layers=[2, 0], heads=[1, 3]).trace(PROMPT, RESPONSES[0])
    assert trace.layers == (0, 2)
    with pytest.raises(InputError, match="layers among"):
        ft.Tracer(model, tiny_tokenizer(), layers=[7])


def test_nan_attention_is_named_and_leaves_the_others_alone():
    model = tiny_model()
    tracer = ft.Tracer(model, tiny_tokenizer())
    good = tracer.trace(PROMPT, RESPONSES[0])
    poison = tiny_tokenizer()("☃")["input_ids"]
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = float("nan")
    bad = ft.Rollout(prompt=PROMPT, response="☃ " + RESPONSES[0], id="nan")
    skipped, same = tracer.trace_batch([bad, rollouts()[0]])
    assert skipped.reason == "non_finite_attention"
    assert_same(good, same)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 3e38])
@pytest.mark.parametrize(
    ("capacity", "graph"),
    [
        ("attention", "tokens"),
        ("value", "tokens"),
        ("alti", "tokens"),
        ("attention", "layered"),
    ],
)
def test_a_weight_that_is_no_number_is_named_whatever_an_edge_is(capacity, graph, value):
    model = tiny_model()
    tracer = ft.Tracer(model, tiny_tokenizer(), capacity=capacity, graph=graph)
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, :] = value
    result = tracer.trace_batch(rollouts()[:1])[0]
    if isinstance(result, ft.Trace):  # scores that are far apart, but finite: attention of zeros and ones
        assert abs(value) < float("inf")
        assert result.conservation_error() < 1e-4
        assert np.isfinite(result.flow).all()
    else:
        assert result.reason == "non_finite_attention"


def test_gradients_of_a_model_whose_logits_are_no_numbers_are_refused():
    model = tiny_model()
    tracer = ft.Tracer(model, tiny_tokenizer(), capacity="gradient")
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, :] = float("inf")
    with pytest.raises(CaptureError, match="finite logits"):
        tracer.trace_batch(rollouts()[:1])


@pytest.mark.parametrize("graph", ["tokens", "layered"])
@pytest.mark.parametrize("at", ["token", "prediction"])
def test_one_question_token_and_an_answer_that_is_the_last(graph, at):
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer(), graph=graph, at=at)
    trace = tracer.trace("q", "so it is 7", answer="7")
    assert (len(trace.question), trace.answer.stop) == (1, len(trace))
    assert trace.conservation_error() < 1e-5


def test_an_answer_that_stands_in_the_prompt_alone_is_none(tracer):
    for prompt in ("It is \\boxed{7}. Why?", "The answer is 7.\n#### 7\n<answer>7</answer>\n"):
        with pytest.raises(TraceError) as caught:
            tracer.trace(prompt, "I do not know.")
        assert caught.value.reason == "no_answer"
        with pytest.raises(TraceError) as caught:
            tracer.trace(prompt, "I do not know.", answer="7")
        assert caught.value.reason == "answer_not_in_text"


def test_a_model_without_the_interface_is_refused():
    sizes = {"hidden_size": 32, "n_layer": 4, "n_head": 4}
    with pytest.raises(CaptureError, match="attention interface"):
        ft.Tracer(tiny_model("bloom", **sizes), tiny_tokenizer())


def test_messages_without_a_template_are_refused():
    tokenizer = tiny_tokenizer().__class__(tokenizer_object=tiny_tokenizer()._tokenizer)
    with pytest.raises(InputError, match="chat template"):
        ft.Tracer(tiny_model(), tokenizer).trace(PROMPT, RESPONSES[0])


def test_beyond_the_budget_panels_are_recomputed_with_the_same_numbers(tracer):
    stored = tracer.trace(PROMPT, RESPONSES[1])
    streaming = ft.Tracer(tiny_model(), tiny_tokenizer(), memory_budget=0)
    assert_same(stored, streaming.trace(PROMPT, RESPONSES[1]))
    layers = tracer.reader.read(torch.arange(40)[None])
    assert isinstance(within_budget(AttentionPanels(layers)), CachedPanels)
    assert isinstance(within_budget(AttentionPanels(layers), budget=100), AttentionPanels)


def test_cut_edges_are_the_largest_and_say_so():
    whole = ft.Tracer(tiny_model(), tiny_tokenizer()).trace(PROMPT, RESPONSES[1])
    cut = ft.Tracer(tiny_model(), tiny_tokenizer(), max_edges=50).trace(PROMPT, RESPONSES[1])
    assert whole.edges.complete
    assert not cut.edges.complete
    np.testing.assert_allclose(cut.edges.flow, whole.edges.flow[:50])
    assert "at least" in cut.summary()
    assert cut.backbone(0.999).share < 0.999


def test_a_tokenizer_without_offsets(tmp_path):
    """The slow sentencepiece backend: prompt and response are encoded apart, offsets come from the tokens."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=330,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = SentencePieceBackend(vocab_file=str(tmp_path / "spm.model"), unk_token="<unk>")
    assert not tokenizer.is_fast
    trace = ft.Tracer(tiny_model(), tokenizer).trace("Ann has 3 apples", "so she has 3 + 4 = 7. The answer is 7.")
    assert "7" in trace.slice_text(trace.answer)
    assert trace.slice_text(trace.response).strip() == "so she has 3 + 4 = 7. The answer is 7."
    assert trace.conservation_error() < 1e-9


def test_a_model_that_mixes_packed_sequences_is_refused():
    mixing = tiny_model("gpt_oss", num_local_experts=2, num_experts_per_tok=1)
    tracer = ft.Tracer(mixing, tiny_tokenizer())
    with pytest.raises(CaptureError, match="pack=False"):
        tracer.trace_batch(rollouts(), pack=True)
    assert all(isinstance(trace, ft.Trace) for trace in tracer.trace_batch(rollouts()))


def test_the_bundled_model_goes_by_its_name():
    trace = ft.Tracer.from_pretrained("nano").trace(
        [{"role": "user", "content": "k=7; b=a+3; a=2; m=k-1. b is ?"}],
        "a=2, a is 2.\nk=7, k is 7.\nb=a+3, a is 2, b is 5.\nm=k-1, k is 7, m is 6.\n<answer>5</answer>",
    )
    assert trace.model == "nano"
    assert trace.answer_text == "5"
