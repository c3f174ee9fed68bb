"""A tracer on a tiny model that counts what it traces."""

import pytest

import flowtracer as ft
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def read_model():
    return tiny_model()


@pytest.fixture
def tracer(read_model, monkeypatch):
    """Its `traced` are the rollouts that it was given."""
    tracer = ft.Tracer(read_model, tiny_tokenizer())
    stream, tracer.traced = tracer.trace_stream, []

    def counting(rollouts, **options):
        rollouts = list(rollouts)
        tracer.traced += rollouts
        return stream(rollouts, **options)

    monkeypatch.setattr(tracer, "trace_stream", counting)
    return tracer
