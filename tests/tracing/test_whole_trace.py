"""The benchmark of whole traces, at a size that takes a moment."""

import pytest

import whole_trace as benchmark
from flowtracer.model.load import load_model
from flowtracer.tracing.tracer import Tracer


@pytest.fixture(scope="module")
def row():
    _, tokenizer = load_model("nano")
    model = benchmark.made_model(len(tokenizer))
    tracers = {"streamed": Tracer(model, tokenizer, memory_budget=0), "kept": Tracer(model, tokenizer)}
    return benchmark.measure(tracers, 30 * benchmark.STEP_TOKENS)


def test_it_traces_as_many_sentences_as_it_says(row):
    assert row["steps"] == 30  # the prompt, 28 sentences and the answer


def test_its_table_has_both_ways(row):
    written = benchmark.result([row])
    assert written["lengths"] == [row]
    assert benchmark.measured(row.get("none")) == ("-", "-", "-")
    assert all(float(row[name]["processor_seconds"]) > 0 for name in ("streamed", "kept"))
