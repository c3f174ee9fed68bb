"""A folder of traces: nothing in it is stale, and nothing is computed twice."""

import dataclasses

import pytest

from flowtracer.trace.trace import Rollout, Skipped, load_trace
from flowtracer.tracing.folder import Damaged, Traced, TraceFolder

PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys more. How many?"}]


def rollout(n, name=None, **metadata):
    response = f"3 + {n} = {3 + n}.\nA: {3 + n}"
    return Rollout(prompt=PROMPT, response=response, id=str(n) if name is None else name, metadata=metadata)


def run(path, tracer, records, model="", options=None):
    """Outcomes and summary of a run, and what it traced."""
    tracer.traced.clear()
    folder = TraceFolder(path, options or {}, model=model)
    outcomes = list(folder.trace(tracer, records))
    return outcomes, folder.summarise(), [rollout.response for rollout in tracer.traced]


def texts(path):
    folder = TraceFolder(path, {})
    return [load_trace(file).text.rpartition("A: ")[2] for file in folder.files()]


def ids(path):
    return [load_trace(file).metadata["id"] for file in TraceFolder(path, {}).files()]


def test_rollouts_that_were_generated_anew_are_traced_anew(tracer, tmp_path):
    _, first, _ = run(tmp_path, tracer, [rollout(1, "a"), rollout(2, "b"), rollout(3, "c")])
    _, second, traced = run(tmp_path, tracer, [rollout(1, "a"), rollout(5, "b")])
    assert traced == [rollout(5).response]
    assert texts(tmp_path) == ["4", "8"]
    assert len(TraceFolder(tmp_path, {}).unused()) == 2
    assert (first.traced, second.traced) == (3, 2), "what the file no longer says is not in the summary"
    outcomes, third, traced = run(tmp_path, tracer, [rollout(1, "a"), rollout(2, "b"), rollout(3, "c")])
    assert traced == [], "and comes back when it says it again"
    assert all(outcome.held for outcome in outcomes)
    assert third == first
    assert texts(tmp_path) == ["4", "5", "6"]


def test_a_file_in_another_order_is_the_same_rollouts(tracer, tmp_path):
    records = [rollout(n % 3, f"{n}") for n in range(5)]  # some of them equal
    _, first, traced = run(tmp_path, tracer, records)
    assert len(traced) == 5
    for order in ([4, 2, 0, 1, 3], [1, 0, 2, 4, 3], [3, 4, 2]):
        reordered = [dataclasses.replace(records[n], id=str(place)) for place, n in enumerate(order)]
        _, summary, traced = run(tmp_path, tracer, reordered)
        assert traced == []
        assert texts(tmp_path) == [str(3 + n % 3) for n in order]
        assert ids(tmp_path) == [str(place) for place in range(len(order))], "a name that is a place goes along"
        assert summary.traced == len(order)
    assert run(tmp_path, tracer, records)[1:] == (first, [])


def test_a_new_label_is_no_new_rollout(tracer, tmp_path):
    run(tmp_path, tracer, [rollout(1), rollout(2)])
    _, summary, traced = run(tmp_path, tracer, [rollout(1, is_correct=True), rollout(2, is_correct=False)])
    assert traced == []
    assert set(summary.share_through_hubs) == {"all", "right", "wrong"}
    whole = run(tmp_path / "whole", tracer, [rollout(1, is_correct=True), rollout(2, is_correct=False)])[1]
    assert summary == whole


def test_another_model_of_the_same_name_traces_anew(tracer, tmp_path):
    run(tmp_path, tracer, [rollout(1)], model="before training")
    _, summary, traced = run(tmp_path, tracer, [rollout(1)], model="after training")
    assert len(traced) == summary.traced == 1


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: b"", lambda c: c[:-9] + b"x" + c[-8:]])
def test_a_damaged_trace_is_named_and_computed_again(tracer, tmp_path, damage):
    records = [rollout(n) for n in range(3)]
    _, first, _ = run(tmp_path, tracer, records)
    file = TraceFolder(tmp_path, {}).files()[1]
    whole = load_trace(file)
    file.write_bytes(damage(file.read_bytes()))
    outcomes, summary, traced = run(tmp_path, tracer, records)
    assert traced == [records[1].response]
    assert [outcome.file for outcome in outcomes if isinstance(outcome, Damaged)] == [file]
    assert sorted(outcome.held for outcome in outcomes if isinstance(outcome, Traced)) == [False, True, True]
    assert load_trace(file).text == whole.text
    assert summary.traced == first.traced


def test_a_file_is_read_as_it_is_traced(tracer, tmp_path):
    taken = []

    def records():
        for n in range(100_000):
            taken.append(n)
            yield Skipped(id=str(n), reason="broken_json", message="x") if n % 2 else rollout(n % 7)

    running = TraceFolder(tmp_path, {}).trace(tracer, records())
    seen = [next(running) for _ in range(130)]  # the bad ones of the first window are known before its first trace
    assert len(taken) < 1000
    assert sum(isinstance(outcome, Traced) for outcome in seen) == 2
    running.close()
    assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == 128
