"""What lies ahead of a long run: counts are exact, times are those of two real traces."""

import pytest

import flowtracer as ft
from flowtracer.cli.options import parse_bytes
from flowtracer.errors import InputError
from flowtracer.tracing.estimate import estimate
from tiny import tiny_model, tiny_tokenizer

PROMPT = "How many apples?\n"


def rollouts():
    responses = ["3 + 4 = 7.\n#### 7", "First add. " * 30 + "\n#### 7", "no answer at all"]
    return [ft.Rollout(id=str(n), prompt=PROMPT, response=response) for n, response in enumerate(responses)]


def test_it_counts_what_can_be_traced():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer())
    ahead = estimate(tracer, rollouts())
    lengths = [trace.sink.stop for trace in tracer.trace_batch(rollouts()[:2])]
    assert (ahead.rollouts, ahead.tokens, ahead.longest) == (2, sum(lengths), max(lengths))
    assert ahead.seconds > 0
    assert ahead.streamed == 0


def test_it_says_what_will_be_streamed():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer(), memory_budget=2 * 100**2)
    assert estimate(tracer, rollouts()).streamed == 1


def test_nothing_to_trace():
    tracer = ft.Tracer(tiny_model(), tiny_tokenizer())
    assert estimate(tracer, rollouts()[2:]).tokens == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("2GiB", 2**31), ("1.5 MB", 1_500_000), (" 2 TiB", 2**41), ("4096", 4096)]
)
def test_sizes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["2 GiBs", "-1", "much", ""])
def test_no_sizes(text):
    with pytest.raises(InputError, match="expected a size"):
        parse_bytes(text)
