"""Memory that runs out, by an allocator that truly refuses."""

import numpy as np
import pytest
import torch

import flowtracer as ft
from flowtracer.trace.trace import Rollout, Skipped
from flowtracer.tracing.memory import OUT_OF_MEMORY, is_out_of_memory, trace_within_memory
from tiny import tiny_model, tiny_tokenizer


def too_much():
    torch.empty(2**50)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (too_much, True),
        (lambda: np.empty(2**50), True),
        (lambda: torch.empty(2).view(3), False),
        (lambda: torch.zeros(2) @ torch.zeros(3), False),
    ],
)
def test_what_counts_as_out_of_memory(call, expected):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        call()
    assert is_out_of_memory(caught.value) is expected


def rollouts():
    return [Rollout(prompt="Ann has 3.", response="3 + 4 " * n + "= 7.\nA: 7", id=str(n)) for n in (9, 1, 5, 3, 7)]


@pytest.fixture
def limited():
    """A tracer of which forwards over more than `.limit` tokens ask for more than there is."""
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer())
    tracer.limit, tracer.seen = 10**9, []

    def refuse(module, args, kwargs):
        tracer.seen.append(kwargs["input_ids"].numel())
        if tracer.seen[-1] > tracer.limit:
            too_much()

    tracer.model.register_forward_pre_hook(refuse, with_kwargs=True)
    return tracer


def test_what_does_not_fit_together_runs_in_smaller_forwards(limited):
    expected = dict(trace_within_memory(limited, rollouts(), max_tokens=10_000))
    longest = max(len(trace) for trace in expected.values())
    limited.limit = 2 * longest
    found = list(trace_within_memory(limited, rollouts(), max_tokens=10_000))
    assert sorted(place for place, _ in found) == list(range(5)), "nothing lost, nothing twice"
    for place, trace in found:
        assert trace.text == expected[place].text
        np.testing.assert_allclose(trace.flow, expected[place].flow, atol=1e-6)


def test_a_rollout_that_does_not_fit_alone_is_named(limited):
    whole = [result for _, result in sorted(trace_within_memory(limited, rollouts(), max_tokens=64))]
    limited.limit = sorted(len(trace) for trace in whole)[2]
    found = dict(trace_within_memory(limited, rollouts(), max_tokens=10_000))
    assert [found[place].reason if isinstance(found[place], Skipped) else "" for place in range(5)] == [
        OUT_OF_MEMORY if len(trace) > limited.limit else "" for trace in whole
    ]
    assert len(limited.seen) < 60


def test_another_error_is_no_want_of_memory(limited):
    def broken(module, args, kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    limited.model.register_forward_pre_hook(broken, with_kwargs=True)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        list(trace_within_memory(limited, rollouts(), max_tokens=100))
