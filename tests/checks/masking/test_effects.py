"""Effects of single tokens: against an eager forward whose later rows do not see the token."""

import dataclasses

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.checks.masking import hidden_effects, with_all_effects, with_hub_effects
from flowtracer.text.span import Span
from masked_eager import FAMILIES, eager_logits
from tiny import tiny_model, tiny_tokenizer

PROMPT = "Ann has 3 apples and buys 4 more. How many?\n"
RESPONSE = "First add the numbers. So 3 + 4 = 7 apples.\nThe answer is \\boxed{7}. Done."


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_an_eager_forward_without_the_token_gives(family):
    model = tiny_model(family, **FAMILIES[family])
    trace = ft.Tracer(model, tiny_tokenizer()).trace(PROMPT, RESPONSE)
    ids = trace.token_ids[: trace.answer.stop].tolist()
    places = torch.arange(trace.answer.start - 1, trace.answer.stop - 1)
    answer = torch.tensor(ids[trace.answer.start :])

    def log_prob(hidden):
        logits_TL, _ = eager_logits(model, ids, hidden)
        return float(logits_TL[places].log_softmax(-1).gather(-1, answer[:, None]).sum())

    start = trace.response.start
    tokens = [3, start, start + 5, trace.answer.start - 1, Span(start=start, stop=start + 4)]
    runs = [(token,) if isinstance(token, int) else tuple(token) for token in tokens]
    expected = [log_prob(run) - log_prob(()) for run in runs]
    assert any(abs(change) > 1e-3 for change in expected)
    for budget in (1, 4096):  # each alone, and all in one forward
        assert hidden_effects(model, trace, tokens, max_tokens=budget) == pytest.approx(expected, abs=1e-4)


def test_a_trace_keeps_what_was_measured(tmp_path):
    model = tiny_model()
    trace = ft.Tracer(model, tiny_tokenizer()).trace(PROMPT, RESPONSE)
    measured = with_hub_effects(model, trace, hubs=3)
    assert list(measured.effects) == [hub.token for hub in trace.hubs(3)]
    loaded = ft.load_trace(measured.save(tmp_path / "t.safetensors"))
    assert loaded.effects == measured.effects
    np.testing.assert_array_equal(loaded.flow, trace.flow)
    assert dataclasses.replace(loaded, effects={}).to_dict() == trace.to_dict()


def test_all_tokens_of_the_response_before_the_answer_are_measured():
    model = tiny_model()
    trace = ft.Tracer(model, tiny_tokenizer()).trace(PROMPT, RESPONSE)
    measured = with_all_effects(model, trace, max_tokens=500)
    tokens = list(range(trace.response.start, trace.answer.start))
    assert list(measured.effects) == tokens
    alone = [hidden_effects(model, trace, [token])[0] for token in tokens]
    assert list(measured.effects.values()) == pytest.approx(alone, abs=1e-4)


def test_a_model_that_gives_all_logits_is_measured_as_well(monkeypatch):
    model = tiny_model()
    trace = ft.Tracer(model, tiny_tokenizer()).trace(PROMPT, RESPONSE)
    tokens = [hub.token for hub in trace.hubs(3)]
    expected = hidden_effects(model, trace, tokens)
    own = model.forward

    def forward(input_ids, attention_mask, position_ids):  # a model's own code, which knows no more options
        return own(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    monkeypatch.setattr(model, "forward", forward)
    assert hidden_effects(model, trace, tokens) == pytest.approx(expected, abs=1e-5)
