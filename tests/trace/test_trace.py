import dataclasses
import io
import json
import stat

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from flowtracer.errors import FormatError, InputError
from flowtracer.text.span import Span
from flowtracer.trace import Trace, TrainedOn, find_traces, load_trace
from flowtracer.trace import trace as trace_module
from flowtracer.trace.backbone import Edges
from synthetic import RIGHT, synthetic_trace
from traces import make_trace


def shown(trace, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(trace)
    return console.export_text()


def test_save_and_load_give_back_everything(tmp_path):
    trace = make_trace()
    loaded = load_trace(trace.save(tmp_path / "t.safetensors"))
    for field in dataclasses.fields(Trace):
        kept, given = getattr(loaded, field.name), getattr(trace, field.name)
        assert type(kept) is type(given), field.name
        if isinstance(given, np.ndarray):
            assert kept.dtype == given.dtype, field.name
            np.testing.assert_array_equal(kept, given)
    assert loaded.to_dict() == trace.to_dict()


def test_traces_are_equal_where_all_that_they_hold_is(tmp_path):
    trace = make_trace()
    loaded = load_trace(trace.save(tmp_path / "t.safetensors"))
    assert loaded == trace
    assert len({loaded, trace}) == 1
    reordered = dataclasses.replace(trace, metadata=dict(reversed(trace.metadata.items())))
    assert reordered == trace
    array = {"flow": np.nextafter(trace.flow, 2)}
    known = {"expected_flow": trace.flow}
    for change in (
        array,
        known,
        {"text": trace.text + " "},
        {"metadata": {}},
        {"effects": {1: 0.5}},
        {"layers": (1, 3)},
    ):
        assert dataclasses.replace(trace, **change) != trace
    assert trace != "a trace"


def test_a_file_has_the_mode_of_others_and_the_same_bytes_again(tmp_path):
    (tmp_path / "other").write_text("")
    files = [make_trace().save(tmp_path / f"{n}.safetensors") for n in range(3)]
    assert len({file.read_bytes() for file in files}) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 4


def flipped(content):
    """The content with one of its bits turned over: every 29th, so each place in a byte, and the whole of the file."""
    for bit in range(0, 8 * len(content), 29):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_a_file_of_which_one_bit_turned_over_is_refused(tmp_path):
    file = make_trace(text='né "\u2028\n', metadata={"file_sha256": "0" * 64}).save(tmp_path / "t.safetensors")
    assert load_trace(file).metadata == {"file_sha256": "0" * 64}
    for content in flipped(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(FormatError):
            load_trace(file)


def unsigned(trace, path):
    """A file as it was written before schema 3."""
    header = {**trace_module._header(trace), "schema_version": 2}
    save_file(trace_module._arrays(trace), path, metadata={"flowtracer": json.dumps(header)})
    return path


def test_a_file_without_a_digest_is_read_if_it_is_old_enough(tmp_path):
    file = unsigned(make_trace(), tmp_path / "t.safetensors")
    assert load_trace(file) == make_trace()
    content = file.read_bytes()
    file.write_bytes(content.replace(b'schema_version\\": 2', b'schema_version\\": 3'))
    with pytest.raises(FormatError, match="without its digest"):
        load_trace(file)
    refused = 0
    for damaged in flipped(content[:1200]):  # the header; no digest watches over the arrays
        file.write_bytes(damaged + content[1200:])
        try:
            load_trace(file)
        except FormatError:
            refused += 1
    assert refused > 50


def test_what_a_trainer_made_of_it_is_kept(tmp_path):
    assert make_trace().to_dict()["trained"] is None
    factor = np.array([0, 1, 1.5, 1], dtype=np.float32)
    trained = TrainedOn(step=3, advantage=-0.5, factor=factor, token_advantage=-0.5 * factor)
    loaded = load_trace(make_trace(trained=trained).save(tmp_path / "t.safetensors"))
    assert (loaded.trained.step, loaded.trained.advantage) == (3, -0.5)
    for name in ("factor", "token_advantage"):
        kept = getattr(loaded.trained, name)
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, getattr(trained, name))
    content = json.loads(json.dumps(loaded.to_dict()))
    assert content["trained"] == {"step": 3, "advantage": -0.5}
    assert content["trained_token_advantage"] == [0, -0.5, -0.75, -0.5]


def test_a_trace_of_the_first_schema_is_read_without_heads(tmp_path, monkeypatch):
    arrays = trace_module._arrays
    by_head = ("edge_heads", "edge_head_shares", "head_flow")
    monkeypatch.setattr(trace_module, "_arrays", lambda t: {n: a for n, a in arrays(t).items() if n not in by_head})
    file = make_trace(schema_version=1).save(tmp_path / "t.safetensors")
    monkeypatch.undo()
    old = load_trace(file)
    assert (old.edge_heads.shape, old.edge_head_shares.shape, old.head_flow.shape) == ((4, 0, 2), (4, 0), (2, 0))
    assert load_trace(old.save(tmp_path / "new.safetensors")).to_dict() == old.to_dict()


def test_what_place_alone_would_carry_is_kept_and_older_traces_are_read_without(tmp_path):
    known = make_trace(expected_flow=np.array([1.0, 0.25, 0.75, 1.0]))
    loaded = load_trace(known.save(tmp_path / "t.safetensors"))
    np.testing.assert_array_equal(loaded.expected_flow, known.expected_flow)
    assert loaded == known
    assert json.loads(json.dumps(known.to_dict()))["expected_flow"] == [1.0, 0.25, 0.75, 1.0]
    old = load_trace(make_trace(schema_version=3).save(tmp_path / "old.safetensors"))
    assert (old.expected_flow, old.excess, old.schema_version) == (None, None, trace_module.SCHEMA_VERSION)


def test_a_trace_that_holds_the_matrix_of_step_flow_is_read(tmp_path, monkeypatch):
    new = make_trace(
        step_spans=tuple(Span(start=n, stop=n + 1) for n in range(4)),
        step_within=np.array([0.0, 0.25, 0.0, 0.125]),
        step_edges=Edges(
            source=np.array([2, 0, 1]), target=np.array([3, 1, 3]), flow=np.array([0.75, 0.5, 0.25]), complete=True
        ),
    )
    arrays = trace_module._arrays

    def as_before(trace):
        kept = {name: array for name, array in arrays(trace).items() if not name.startswith(("step_edge", "step_with"))}
        return {**kept, "step_flow": trace.step_flow}

    monkeypatch.setattr(trace_module, "_arrays", as_before)
    file = dataclasses.replace(new, schema_version=2).save(tmp_path / "t.safetensors")
    monkeypatch.undo()
    assert load_trace(file).to_dict() == new.to_dict()
    assert new.step_flow.tolist() == [[0, 0.5, 0, 0], [0, 0.25, 0, 0.25], [0, 0, 0, 0.75], [0, 0, 0, 0.125]]


@pytest.mark.parametrize("text", ["</script>\x1b[2J\r\u202e123", "\ud800 lone", "", "é" * 9, "\0" * 12])
def test_hostile_text_survives_the_disk_and_never_reaches_the_terminal(tmp_path, text):
    trace = make_trace(text=text)
    assert load_trace(trace.save(tmp_path / "t.safetensors")).text == text
    printed = shown(trace)
    assert not set(printed) & set("\x1b\r\u202e\0\ud800")


def test_to_dict_is_json():
    content = json.loads(json.dumps(make_trace().to_dict()))
    assert content["flow"] == [1.0, 0.5, 0.5, 1.0]
    assert content["throughput"] == [2.0, 1.0, 1.0, 1.0]
    assert content["answer"] == {"start": 3, "stop": 4}
    assert content["edge_heads"][0] == [[1, 0], [2, 1]]


def test_layers_give_what_their_heads_give():
    assert make_trace().layer_flow.tolist() == [0.625, 0.375]


def test_hubs_are_reasoning_tokens_unless_the_prompt_is_asked_for():
    trace = make_trace()
    assert [hub.token for hub in trace.hubs(level="tokens")] == [1, 2]
    assert [hub.token for hub in trace.hubs(level="tokens", prompt=True)] == [0, 1, 2]


def test_paths_and_backbone():
    trace = make_trace()
    paths = trace.paths(5, level="tokens")
    assert {path.tokens for path in paths} == {(0, 1, 3), (0, 2, 3)}
    assert all(path.share == pytest.approx(0.5) for path in paths)
    assert trace.backbone(1.0).share == pytest.approx(1)
    assert len(trace.backbone(1.0).edges) == 4
    assert trace.share_through([1]) == pytest.approx(0.5)
    assert trace.share_through([1, 2]) == pytest.approx(1)


def test_steps_exchange_the_unit():
    prompt, reasoning = make_trace().steps()
    assert (prompt.inflow, prompt.outflow) == (1.0, 1.0)
    assert (reasoning.inflow, reasoning.outflow) == (1.0, 0.0)


def test_conservation_error_sees_a_violation():
    trace = make_trace()
    assert trace.conservation_error() == 0
    broken = dataclasses.replace(trace, flow=np.array([1.0, 0.6, 0.5, 1.0]))
    assert broken.conservation_error() == pytest.approx(0.1)


def test_the_summary_says_which_steps_and_numbers_carried_the_answer():
    trace = synthetic_trace(RIGHT)
    first, second = trace.hubs(2, level="steps")
    numbers = [hub.unit.name for hub in trace.hubs(12) if hub.unit.kind == "number"]
    said = f"The answer 7 draws {first.flow:.0%} of its flow through {first.unit.name} and {second.flow:.0%} through "
    assert trace.summary().startswith(f"{said}{second.unit.name}, above all by {numbers[0]}")
    straight = next(path.share for path in trace.paths(9) if len(path.units) == 2)
    assert trace.summary().endswith(f"; {straight:.0%} comes straight from the prompt.")
    cut = dataclasses.replace(trace, edges=trace.edges.top(40))
    assert "; at least " in cut.summary()
    assert synthetic_trace(("7",)).summary() == "The answer 7 draws its flow straight from the prompt."
    words = synthetic_trace(("So", " eggs", ".", "\n", "A", ":", " 7"))
    assert "above all by “eggs” and “So”" in words.summary() or "above all by “So” and “eggs”" in words.summary()


def test_terminal_shows_answer_hubs_and_paths():
    printed = shown(make_trace())
    assert "Hubs" in printed
    assert "Strongest paths through steps" in printed
    assert "Strongest paths through words" in printed
    assert "50.0%" in printed


@pytest.mark.parametrize("content", [b"", b"not a trace", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_trace_is_refused(tmp_path, content):
    file = tmp_path / "t.safetensors"
    file.write_bytes(content)
    with pytest.raises(FormatError, match="expected a trace"):
        load_trace(file)


def test_missing_file_newer_schema_and_missing_folder(tmp_path):
    with pytest.raises(FormatError, match="expected a trace"):
        load_trace(tmp_path / "none.safetensors")
    newer = make_trace(schema_version=99).save(tmp_path / "t.safetensors")
    with pytest.raises(FormatError, match="update flowtracer"):
        load_trace(newer)
    with pytest.raises(InputError, match="existing folder"):
        make_trace().save(tmp_path / "no" / "t.safetensors")


def test_find_traces(tmp_path):
    made = [tmp_path / "traces" / name for name in ("b.safetensors", "step-000010/a.safetensors")]
    for file in (*made, tmp_path / "model.safetensors"):
        file.parent.mkdir(parents=True, exist_ok=True)
        make_trace().save(file)
    assert find_traces(made[0]) == made[:1]
    assert find_traces(tmp_path) == made, "a model beside the traces is none of them"
    assert find_traces(tmp_path / "traces" / "step-000010") == made[1:]
    with pytest.raises(InputError, match="does not exist"):
        find_traces(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="got none"):
        find_traces(tmp_path / "empty")


def test_labels_are_words_for_readers():
    trace = make_trace(text="ab 12345\n\x1b")
    offsets = np.array([[0, 1], [2, 5], [8, 9], [9, 10]])
    labels = [dataclasses.replace(trace, offsets=offsets).label(t) for t in range(4)]
    assert labels == ["ab", "12345", "⏎", "·"]
