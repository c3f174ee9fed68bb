"""What is measured on a GPU or planned for one, as far as a machine without one shows it; kernels: test_kernels.py."""

import json
import time
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import gpu
import long_trace
import planning
import random_models
from flowtracer.model.capture import AttentionReader
from flowtracer.model.load import load_model
from flowtracer.signals.generated import hear_generation
from flowtracer.study.machine import stamp
from gpu_report import gpu_section

SHAPE = {
    **random_models.QWEN3["0.6B"],
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture(scope="module")
def row():
    model = random_models.random_model(SHAPE, device="cpu", longest=2048).eval()
    return long_trace.measure(model, random_models.byte_tokenizer(SHAPE["vocab_size"]), 600)


def test_a_long_trace_is_measured(row):
    assert 540 < row["length"] <= 600
    assert row["steps"] == 11, "the prompt, nine sentences, and the answer"
    assert row["conservation_error"] < 1e-6
    assert all(row[kind]["seconds"] > 0 for kind in ("forward", "trace without heads", "trace"))


def test_the_page_has_what_was_measured_and_names_what_was_not(row, tmp_path):
    file = tmp_path / "gpu.json"
    assert "Not measured yet" in "\n".join(gpu_section(file))
    found = {
        "machine": stamp(),
        "against_float64": {"failure": None, "summary": "== 62 passed in 80.00s =="},
        "kernel": {"failure": "exit code 1", "summary": "out of memory"},
        "step_share": {"failure": "out of time", "summary": ""},
        "long_trace": {"failure": None, "lengths": [row]},
    }
    file.write_text(json.dumps(found))
    page = "\n".join(gpu_section(file))
    assert "float64 on the GPU: 62 passed in 80.00s." in page
    assert f"| {row['length']} | {row['forward']['seconds']:.2f} |" in page
    assert "`kernel` did not end: exit code 1." in page
    assert "`step_share` did not end: out of time." in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="what they say where there is no GPU; runs on a machine without")
@pytest.mark.parametrize("program", [gpu, long_trace])
def test_a_gpu_is_asked_for(program, capsys):
    with pytest.raises(SystemExit) as left:
        program.main([])
    assert left.value.code == 2
    assert "expected an NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "seconds", "failure", "last"),
    [
        ("print('a'); print('b')", 60, None, "b"),
        ("print('a'); raise SystemExit(3)", 60, "exit code 3", "a"),
        ("print('a', flush=True); import time; time.sleep(600)", 4, "out of time", "a"),
    ],
)
def test_parts_fail_by_name(code, seconds, failure, last):
    assert gpu.run(["-c", code], time.monotonic() + seconds) == (failure, last)


def test_the_plan_knows_what_a_generation_keeps():
    model, tokenizer = load_model("nano", device="cpu")
    config = model.config
    shape = planning.decoder(config.num_hidden_layers, config.hidden_size, config.num_attention_heads, 0, 0)
    shape = replace(shape, key_heads=config.num_key_value_heads, width=config.head_dim)
    reader = AttentionReader(model)
    assert shape.read == len(reader.layers)
    asked = tokenizer(["1+1=", "2+2="], return_tensors="pt")
    with hear_generation(model, reader.layers, 2**40) as heard:
        whole = model.generate(**asked, max_new_tokens=9, min_new_tokens=9, pad_token_id=tokenizer.eos_token_id)
    taken_in = whole.shape[0] * (whole.shape[1] - 1)  # the last token is never taken in
    assert heard.kept == planning.kept_bytes(shape, taken_in, item=4)


def test_the_page_of_the_plan_is_what_the_formulas_give():
    page = planning.PAGE.read_text()
    assert planning.filled(page) == page, "python benchmarks/planning.py"


@pytest.mark.parametrize("name", random_models.QWEN3)
def test_shapes_have_the_parameters_that_their_names_say(name):
    assert planning.SHAPES[name].active == pytest.approx(1e9 * float(name.removesuffix("B")), rel=0.06)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **random_models.QWEN3[name]))
    met = sum(weights.numel() for key, weights in model.named_parameters() if "norm" not in key)
    embedded = 0 if model.config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    assert planning.SHAPES[name].active == met - embedded
