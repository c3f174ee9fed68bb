"""Partitioned tables: nothing lost, nothing twice, nothing computed twice, whatever was killed or has shifted."""

import dataclasses
import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

import flowtracer as ft
from flowtracer.trace.measures import concentration, hub_share
from flowtracer.trace.rollout_table import COLUMNS, read_rows
from flowtracer.trace.trace import Rollout, Skipped, load_trace
from flowtracer.tracing.attempts import ALONE, SKIPPED, WORKER_DIED
from flowtracer.tracing.folder import TraceFolder
from flowtracer.tracing.parts import PartFolder, decode_window, encode_window, finish_parts, part_files, windows

PROMPT = [{"role": "user", "content": "Ann has 3 apples and buys more. How many?"}]


def rollout(n, name=None, **metadata):
    response = f"3 + {n} = {3 + n}.\n" * (1 + n % 3) + f"A: {3 + n}"
    return Rollout(prompt=PROMPT, response=response, id=str(n) if name is None else name, metadata=metadata)


BAD = Skipped(id="r:4", reason="broken_json", message="expected a JSON object")
MUTE = Rollout(prompt="q", response="no answer", id="mute", metadata={"score": 0.25})


def records(count=10):
    return [*(rollout(n, is_correct=n % 2 == 0, reward=n) for n in range(3)), BAD, MUTE, *map(rollout, range(3, count))]


def run(path, tracer, records, order=None, **options):
    """Parts of a run, its summary, and what it traced."""
    tracer.traced.clear()
    folder = PartFolder(path, {"made": "so"}, **options)
    numbered = list(windows(records, 4))
    made = [folder.make(*numbered[n], tracer) for n in order or range(len(numbered))]
    return made, finish_parts(path, [part.name for part in made]), [rollout.id for rollout in tracer.traced]


def rows(path):
    return list(read_rows(part_files(path)))


def tokens(path):
    """Rows of tokens by the trace that they are of."""
    found = {}
    for file in sorted((path / "tokens").glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            found.setdefault(row["trace"], []).append(row)
    return found


def about(value):
    """Forwards of other rollouts round otherwise."""
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


def same(a, b):
    """Whether two folders say the same of every rollout and token, to the bit."""
    return rows(a) == rows(b) and tokens(a) == tokens(b)


def test_a_row_is_what_the_trace_says(tracer, tmp_path):
    made, summary, _ = run(tmp_path / "parts", tracer, records(), keep_traces=True)
    found = rows(tmp_path / "parts")
    assert [row["place"] for row in found] == list(range(12))
    assert [row["id"] for row in found] == [record.id for record in records()]
    assert sum(part.made for part in made) == 10
    for row in found:
        assert tuple(row) == tuple(COLUMNS)
        if row["trace"] is None:
            continue
        trace = load_trace(tmp_path / "parts" / "traces" / f"{row['trace']}.safetensors")
        assert (row["tokens"], row["answer"], row["answer_rule"]) == (len(trace), trace.answer_text, trace.answer_rule)
        assert (row["concentration"], row["hub_share"]) == (concentration(trace), hub_share(trace))
        assert row["hubs"] == [hub.label for hub in trace.hubs(5)]
        own = tokens(tmp_path / "parts")[row["trace"]]
        np.testing.assert_array_equal([token["throughput"] for token in own], trace.throughput)
    bad, mute = found[3:5]
    assert (bad["reason"], bad["message"], bad["key"]) == (BAD.reason, BAD.message, None)
    assert (mute["reason"], mute["reward"], mute["trace"]) == ("no_answer", 0.25, None)
    assert [row["correct"] for row in found[:3]] == [True, False, True]
    plain = TraceFolder(tmp_path / "plain", {})
    list(plain.trace(tracer, records()))
    other = plain.summarise()
    assert (other.skipped, other.tokens, other.hub_words) == (summary.skipped, summary.tokens, summary.hub_words)
    assert other.share_through_hubs == pytest.approx(summary.share_through_hubs)


def test_windows_in_any_order_give_the_same_tables(tracer, tmp_path):
    run(tmp_path / "a", tracer, records())
    run(tmp_path / "b", tracer, records(), order=[2, 0, 1])
    assert same(tmp_path / "a", tmp_path / "b")


def test_what_stands_is_not_made_again(tracer, tmp_path):
    _, first, _ = run(tmp_path, tracer, records())
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    made, second, traced = run(tmp_path, tracer, records())
    assert (traced, second) == ([], first)
    assert sum(part.held for part in made) == first.traced
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")} == written


@pytest.mark.parametrize("keep_traces", [False, True])
def test_an_input_that_has_shifted_is_copied_but_for_what_is_new(tracer, tmp_path, keep_traces):
    run(tmp_path / "old", tracer, records(), keep_traces=keep_traces)
    renamed = [r if isinstance(r, Skipped) else dataclasses.replace(r, id=f"x{r.id}") for r in records()]
    shifted = [rollout(90), *renamed]
    _, _, traced = run(tmp_path / "old", tracer, shifted, keep_traces=keep_traces)
    assert traced == ["90"]
    run(tmp_path / "new", tracer, shifted, keep_traces=keep_traces)
    for old, new in zip(rows(tmp_path / "old"), rows(tmp_path / "new"), strict=True):
        assert old == {name: about(value) for name, value in new.items()}
    assert tokens(tmp_path / "old").keys() == tokens(tmp_path / "new").keys()
    traces = {file.stem for file in (tmp_path / "old" / "traces").glob("*.safetensors")}
    assert traces == (tokens(tmp_path / "old").keys() if keep_traces else set())
    assert all(load_trace(f).metadata["id"].startswith(("x", "90")) for f in tmp_path.glob("old/traces/*.safetensors"))
    _, back, traced = run(tmp_path / "old", tracer, records(), keep_traces=keep_traces)
    assert traced == [], "what was set aside comes back"
    assert back.traced == 10


def test_a_new_label_is_no_new_rollout(tracer, tmp_path):
    run(tmp_path, tracer, [rollout(1), rollout(2)])
    _, summary, traced = run(tmp_path, tracer, [rollout(1, is_correct=True), rollout(2, is_correct=False, score=2)])
    assert traced == []
    assert set(summary.share_through_hubs) == {"all", "right", "wrong"}
    assert [row["reward"] for row in rows(tmp_path)] == [None, 2.0]


def test_fewer_rollouts_set_the_others_aside(tracer, tmp_path):
    run(tmp_path, tracer, records())
    _, summary, traced = run(tmp_path, tracer, records()[:6])
    assert (traced, summary.rollouts) == ([], 6)
    assert len(tokens(tmp_path)) == 4
    _, summary, traced = run(tmp_path, tracer, records())
    assert (traced, summary.rollouts) == ([], 12)


@pytest.mark.parametrize("kind", ["rollouts", "tokens"])
def test_a_part_without_one_of_its_tables_is_made_again(tracer, tmp_path, kind):
    run(tmp_path / "whole", tracer, records())
    run(tmp_path / "cut", tracer, records())
    file = sorted((tmp_path / "cut" / kind).glob("*.parquet"))[1]
    file.unlink() if kind == "tokens" else file.write_bytes(file.read_bytes()[:-9])
    made, _, traced = run(tmp_path / "cut", tracer, records())
    assert traced == (["3", "4", "5"] if kind == "tokens" else ["mute", "3", "4", "5"])
    assert [list(part.damaged) for part in made] == [[], [f"{kind}/{file.name}"], []]
    assert same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("kind", ["rollouts", "tokens", "empty tokens", "traces"])
def test_what_is_damaged_is_named_and_traced_again(tracer, tmp_path, kind):
    """Where the input has shifted, so that parts are made anew out of what others hold."""
    run(tmp_path, tracer, records(), keep_traces=True)
    shifted = [rollout(90), *records()]
    file = sorted((tmp_path / kind.removeprefix("empty ")).iterdir())[0]
    if kind == "empty tokens":
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    else:
        file.write_bytes(file.read_bytes()[:-9])
    made, summary, traced = run(tmp_path, tracer, shifted, keep_traces=True)
    assert traced == (["90", "0"] if kind == "traces" else ["90", "0", "1", "2"])
    named = file.relative_to(tmp_path).as_posix()
    assert {name for part in made for name in part.damaged} == {named}
    assert summary.traced == 11
    assert all(tokens(tmp_path)[row["trace"]] for row in rows(tmp_path) if row["trace"])


def test_other_options_need_another_folder(tracer, tmp_path):
    run(tmp_path, tracer, records())
    with pytest.raises(ft.errors.InputError, match="traces true instead of false"):
        run(tmp_path, tracer, records(), keep_traces=True)


def test_a_window_comes_through_another_process_whole():
    given = [*records(), Rollout(prompt="\ud800", response="r", answer="a", token_ids=([1], [2, 3]))]
    assert decode_window(encode_window(given)) == given


def deadly(folder, tracer, victims, stamp):
    """Make the part of a window in a fork that is killed as soon as it traces one of the victims."""
    stream = tracer.trace_stream

    def killing(rollouts, **options):
        rollouts = list(rollouts)
        for index, result in stream(rollouts, **options):
            stamp(rollouts[index].id, options.get("max_tokens"))
            if rollouts[index].id in victims:
                os.kill(os.getpid(), signal.SIGKILL)
            yield index, result

    child = os.fork()
    if child == 0:
        tracer.trace_stream = killing
        folder.make(0, WINDOW_OF_FOUR, tracer, max_tokens=64)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


WINDOW_OF_FOUR = [rollout(n) for n in range(4)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to share the model; wherever fork is")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # libraries keep threads that rest
def test_whoever_follows_the_dead_takes_less_and_at_last_goes_around(tracer, tmp_path):
    folder = PartFolder(tmp_path / "a", {"made": "so"})
    notes = tmp_path / "notes"

    def stamp(name, max_tokens):
        with notes.open("a") as file:
            file.write(f"{name} {max_tokens}\n")

    deaths = 0
    while deadly(folder, tracer, {"2"}, stamp) != 0:
        deaths += 1
        assert not part_files(tmp_path / "a"), "a part stands when it is whole"
    assert deaths == ALONE + SKIPPED
    sizes = [line.split()[1] for line in notes.read_text().splitlines()]
    assert list(dict.fromkeys(sizes)) == ["64", "32", "16", "4096"], "4,096 is what one rollout alone runs with"
    assert [(row["id"], row["reason"]) for row in rows(tmp_path / "a")] == [
        *(("0", None), ("1", None)),
        *(("2", WORKER_DIED), ("3", None)),
    ]
    assert not list((tmp_path / "a" / "attempts").iterdir())
    _, summary, traced = run(tmp_path / "a", tracer, WINDOW_OF_FOUR)
    assert traced == ["2"], "a later run tries again what killed its process"
    assert (summary.traced, summary.skipped) == (4, {})
