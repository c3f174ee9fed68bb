import dataclasses
import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import FormatError, InputError
from flowtracer.trace.records import read_rollouts, safe_name
from flowtracer.trace.trace import Rollout, Skipped

USER = [{"role": "user", "content": "q"}]
SAID = [{"role": "assistant", "content": "c"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a\n"}, {"type": "input_text", "text": "b"}]}]
GOOD = {"prompt": "p", "response": "r"}


def jsonl(tmp_path, *records):
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return file


def rollout(prompt, response, id="1", /, **metadata):
    return Rollout(prompt=prompt, response=response, id=id, metadata=metadata)


LAYOUTS = {
    "text": (GOOD, rollout("p", "r")),
    "messages": ({"prompt": USER, "response": "r", "id": "a"}, rollout(USER, "r", "a")),
    "number as id": ({**GOOD, "uid": 9}, rollout("p", "r", "9", uid=9)),
    "null as id": ({**GOOD, "id": None}, rollout("p", "r")),
    "metadata": ({**GOOD, "metadata": {"a": 1, "b": 1}, "b": 2}, rollout("p", "r", a=1, b=2)),
    "gold answer": ({**GOOD, "answer": "4"}, rollout("p", "r", answer="4")),
    "what JSON cannot hold": ({**GOOD, "reward": float("nan"), "step": 1}, rollout("p", "r", step=1)),
    "synonym filled": ({"prompt": "p", "response": None, "completion": "c"}, rollout("p", "c", response=None)),
    "TRL": (
        {"step": 3, "prompt": USER, "completion": SAID, "accuracy_reward": 1.0, "advantage": 0.5},
        rollout(USER, "c", step=3, accuracy_reward=1.0, advantage=0.5),
    ),
    "OpenAI's parts": (
        {"prompt": PARTS, "response": [{"role": "assistant", "content": [{"type": "output_text", "text": "c"}]}]},
        rollout([{"role": "user", "content": "a\nb"}], "c"),
    ),
    "verl": (
        {"input": "user\nq\n", "output": "o", "gts": "4", "score": 1.0, "step": 2, "acc": True},
        rollout("user\nq\n", "o", gts="4", score=1.0, step=2, acc=True),
    ),
    "question": ({"question": "q", "output": "s"}, rollout(USER, "s")),
    "problem": ({"problem": "q", "solution": "s", "problem_id": "b"}, rollout(USER, "s", "b", problem_id="b")),
    "reference beside": ({"problem": "q", "solution": "s", "completion": "c"}, rollout(USER, "c", solution="s")),
    "worked answer": ({"question": "q", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}, rollout(USER, "1 + 1 = 2\n#### 2")),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    record, expected = LAYOUTS[name]
    assert list(read_rollouts(jsonl(tmp_path, record))) == [expected]


def test_graded_solutions_become_one_rollout_each(tmp_path):
    record = {
        "question": "q",
        "ground_truth": "A: is first\nA: 3",
        "small": {"is_correct": False, "solution": "1 + 1 = <<1+1=2>>2\nA: 2"},
        "large": {"is_correct": True, "solution": "A: 3"},
        "note": {"is_correct": True},
    }
    assert list(read_rollouts(jsonl(tmp_path, GOOD, record)))[1:] == [
        rollout(USER, "1 + 1 = 2\nA: 2", "2-small", source="small", is_correct=False, gold="3"),
        rollout(USER, "A: 3", "2-large", source="large", is_correct=True, gold="3"),
    ]


def test_a_rollout_written_as_json_comes_back(tmp_path):
    expected = rollout(USER, "r", "a", reward=0.5)
    written = {k: v for k, v in dataclasses.asdict(expected).items() if v is not None}
    assert list(read_rollouts(jsonl(tmp_path, written))) == [expected]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "p", "resp', "broken_json"),
        (b'{"prompt": "\xff\xfe"}', "broken_json"),
        (b"[" * 100_000, "broken_json"),
        (b'{"prompt": "p", "response": "r", "n": ' + b"9" * 5_000 + b"}", "broken_json"),
        (b'["prompt"]', "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "unknown_schema"),
        (b'{"prompt": "p"}', "unknown_schema"),
        (b'{"question": "q", "answer": 27.0}', "unknown_schema"),
        (b'{"question": "q", "answer": "#### 27"}', "unknown_schema"),
        (b'{"question": "q", "answer": "a\\n#### heading\\nb"}', "unknown_schema"),
        (b'{"question": "q", "m": {"is_correct": "no", "solution": "s"}}', "unknown_schema"),
        (b'{"question": "q", "m": {"is_correct": true, "solution": 1}}', "bad_field"),
        (b'{"prompt": 3, "response": "r"}', "bad_field"),
        (b'{"prompt": [], "response": "r"}', "bad_field"),
        (b'{"prompt": [{"role": "user"}], "response": "r"}', "bad_field"),
        (b'{"prompt": [{"role": "user", "content": []}], "response": "r"}', "bad_field"),
        (b'{"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "response": "r"}', "bad_field"),
        (b'{"prompt": [{"role": "user", "content": [{"type": "text"}]}], "response": "r"}', "bad_field"),
        (b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b', "response": "r"}', "bad_field"),
        (b'{"prompt": "p", "response": null}', "bad_field"),
        (b'{"prompt": "p", "response": "\\ud800"}', "bad_field"),
        (b'{"prompt": "p", "completion": []}', "bad_field"),
        (b'{"prompt": "p", "completion": [{"role": "user", "content": "c"}]}', "bad_field"),
        (b'{"prompt": "p", "completion": [' + b",".join([json.dumps(SAID[0]).encode()] * 2) + b"]}", "bad_field"),
        (b'{"problem": "q", "solution": ["s"]}', "bad_field"),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path, line, reason):
    file = tmp_path / "r.jsonl"
    good = json.dumps(GOOD).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + line + b"\n" + good)
    first, bad, last = read_rollouts(file)
    assert isinstance(bad, Skipped)
    assert (bad.id, bad.reason) == ("r.jsonl:3", reason)
    assert bad.message.startswith("expected")
    assert len(bad.message) < 700
    assert (first.id, last.id) == ("1", "4")


def test_an_unknown_schema_lists_the_layouts_and_the_fields(tmp_path):
    (bad,) = read_rollouts(jsonl(tmp_path, {"text": "t", "label": 1}))
    assert "prompt with response or completion (rollout)" in bad.message
    assert bad.message.endswith("got the fields ['label', 'text']")


def test_a_long_line_is_read_whole(tmp_path):
    (found,) = read_rollouts(jsonl(tmp_path, {"prompt": "p", "response": "x" * 10_000_000}))
    assert len(found.response) == 10_000_000


@pytest.fixture(scope="module")
def any_file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "r.jsonl"


@given(content=st.binary(max_size=200))
def test_any_bytes_are_data(any_file, content):
    any_file.write_bytes(content)
    assert len(list(read_rollouts(any_file))) == sum(bool(line.strip()) for line in content.split(b"\n"))


NAMES = ("prompt", "response", "completion", "input", "output", "question", "problem", "solution", "answer", "id", "m")
NAMES += ("metadata", "is_correct", "ground_truth", "role", "content")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)


@given(record=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_any_record_is_a_rollout_or_has_a_reason(any_file, record):
    any_file.write_text(json.dumps(record))
    for outcome in read_rollouts(any_file):
        if isinstance(outcome, Rollout):
            assert isinstance(outcome.response, str)
            json.dumps(dict(outcome.metadata), allow_nan=False)
        else:
            assert outcome.reason in {"unknown_schema", "bad_field"}


def test_every_kind_of_file_reads_as_jsonl_does(tmp_path):
    records = [{"prompt": USER, "completion": "c", "step": 1}, {"prompt": USER, "completion": "d", "step": 2}]
    file = jsonl(tmp_path, *records)
    expected = list(read_rollouts(file))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "r.parquet", row_group_size=1)
    (tmp_path / "R.JSON").write_text(json.dumps(records))
    (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    for name in ("r.parquet", "R.JSON", "r.jsonl.gz"):
        assert list(read_rollouts(str(tmp_path / name))) == expected


def test_a_parquet_row_that_is_no_text_is_named(tmp_path):
    offsets, characters = np.array([0, 2, 4], dtype=np.int32), b"\xff\xfeok"
    response = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(characters)])
    pq.write_table(pa.table({"prompt": ["p", "p"], "response": response}), tmp_path / "r.parquet")
    bad, good = read_rollouts(tmp_path / "r.parquet")
    assert (bad.id, bad.reason) == ("r.parquet:1", "broken_row")
    assert good == rollout("p", "ok", "2")


def test_damage_that_arrow_knows_no_built_in_error_for_is_named(tmp_path):
    file = tmp_path / "r.parquet"
    pq.write_table(pa.table({"n": pa.array([1], pa.uint8())}), file)
    content = file.read_bytes()
    refused = set()
    for bit in range(8 * content.rindex(b"schema"), 8 * (len(content) - 8)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            list(read_rollouts(file))
        except FormatError as error:
            refused.add(type(error.__cause__.__cause__))
    assert pa.ArrowNotImplementedError in refused


@pytest.mark.parametrize(("limit", "ids"), [(None, "1 s 3 s 5"), (0, ""), (1, "1"), (2, "1 s 3"), (9, "1 s 3 s 5")])
def test_limit_counts_rollouts(tmp_path, limit, ids):
    found = read_rollouts(jsonl(tmp_path, GOOD, {}, GOOD, {}, GOOD), limit=limit)
    assert " ".join(item.id if isinstance(item, Rollout) else "s" for item in found) == ids


def test_limit_counts_the_rollouts_of_one_record(tmp_path):
    record = {"question": "q", **{name: {"is_correct": True, "solution": "s"} for name in "abc"}}
    assert [item.id for item in read_rollouts(jsonl(tmp_path, record), limit=2)] == ["1-a", "1-b"]


def test_reading_is_lazy(tmp_path):
    file = tmp_path / "r.jsonl.gz"
    whole = gzip.compress(("\n".join([json.dumps(GOOD)] * 100) + "\n").encode())
    file.write_bytes(whole + whole[:20])
    assert len(list(read_rollouts(file, limit=50))) == 50
    with pytest.raises(FormatError):
        list(read_rollouts(file))


def damaged_parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": ["p"] * 99, "response": ["r"] * 99}), sink, compression="none")
    content = bytearray(sink.getvalue().to_pybytes())
    content[4:40] = b"\xff" * 36  # the header of the first page
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.jsonl", None, InputError, "no file; check"),
        (".", None, InputError, "a folder with files that end in .jsonl"),
        ("r.csv", b"a,b", InputError, "ends in .jsonl, .jsonl.gz, .json, .parquet, got"),
        ("r", b"", InputError, "ends in"),
        ("r.parquet", b"", FormatError, "r.parquet"),
        ("r.parquet", b"no parquet", FormatError, "r.parquet"),
        ("r.parquet", damaged_parquet(), FormatError, "r.parquet"),
        ("r.json", b"{", FormatError, "r.json"),
        ("r.json", b"\xff", FormatError, "r.json"),
        ("r.json", b"[" * 100_000, FormatError, "r.json"),
        ("r.json", b"{}", FormatError, "not a list of records but one dict"),
        ("r.jsonl.gz", b"no gzip", FormatError, "r.jsonl.gz"),
        ("r.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:-9], FormatError, "r.jsonl.gz"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        list(read_rollouts(tmp_path / name))


def test_an_empty_file_has_no_rollouts(tmp_path):
    assert list(read_rollouts(jsonl(tmp_path))) == []


HOSTILE_NAMES = ["", "../../etc/passwd", "a/b", "a b", "a\0b", "CON", "con", "Con", "lpt1", "A", "a", "x" * 10_000]
HOSTILE_NAMES += ["x" * 9_999, "é", "e\u0301", "\ud800", "\ufffd", ".", "..", "-", "--", "-a", "a-", "a\n", "1", "x"]
RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)


def assert_safe(name):
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name)
    assert not RESERVED.fullmatch(name)


def test_hostile_names_are_safe_and_distinct():
    names = [safe_name(text) for text in HOSTILE_NAMES]
    for name in names:
        assert_safe(name)
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize("plain", ["12-6b_finetuning", "1", "aime-60", "console", "0f3c2b1a-9d8e-4f6a"])
def test_plain_names_stay(plain):
    assert safe_name(plain) == plain


@given(st.text())
def test_names_are_safe(text):
    assert_safe(safe_name(text))
    assert safe_name(text) == safe_name(text)


@given(st.text(max_size=3), st.text(max_size=3))
def test_different_texts_get_different_names(one, other):
    assert (safe_name(one).lower() == safe_name(other).lower()) == (one == other)


@given(st.text())
def test_no_text_takes_the_name_of_another(text):
    name = safe_name(text)
    assert name == text or safe_name(name) != name


@pytest.fixture
def many(tmp_path):
    """Dumps as trainers write them, a file a step, beside what is none."""
    for step in (10, 2, 1):
        row = {"input": "q", "output": f"o{step}", "gts": "4", "score": 1.0, "step": step}
        (tmp_path / f"{step}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    deeper = tmp_path / "deeper" / "completions"
    deeper.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"step": 3, "prompt": "p", "completion": "c"}]), deeper / "c_00003.parquet")
    (tmp_path / ".hidden.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no rollouts", encoding="utf-8")
    return tmp_path


def said(source):
    return [(record.id, record.response) for record in read_rollouts(source)]


def test_a_folder_is_read_in_the_order_of_its_steps(many):
    expected = [("1:1", "o1"), ("2:1", "o2"), ("10:1", "o10"), ("c_00003:1", "c")]
    assert said(many) == expected
    assert said(f"{many}/**/*") == expected
    assert said(f"{many}/[0-9].jsonl") == expected[:2]
    assert said(f"{many}/1?.jsonl") == expected[2:3]
    assert len(list(read_rollouts(many, limit=3))) == 3


def test_one_bad_file_of_many_stops_no_other(many):
    (many / "2.jsonl").unlink()
    (many / "2.parquet").write_bytes(b"PAR1 cut off")
    bad = list(read_rollouts(many))[1]
    assert (bad.id, bad.reason) == (str(many / "2.parquet"), "broken_file")
    assert [record.id for record in read_rollouts(many)][2:] == ["10:1", "c_00003:1"]


@pytest.mark.parametrize("asked", ["", "/*.txt", "/none", "/none*"])
def test_where_nothing_is_to_be_read(tmp_path, asked):
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected a .*(which has none|which is no file); check the path"):
        read_rollouts(f"{tmp_path}{asked}")


def test_a_data_set_is_read_as_its_files_are(tmp_path, monkeypatch):
    """`datasets` loads a folder as it loads the hub."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", "reward": n / 2} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    of_hub = list(read_rollouts(f"hub:{folder}:split=test", limit=2))
    assert of_hub == list(read_rollouts(folder / "test.parquet", limit=2))
    with pytest.raises(InputError, match=r"expected the data set .* pass a local file"):
        read_rollouts(f"hub:{folder}:split=none")
    for wrong in ("hub:", "hub:a/b:splt=x", "hub:a/b:split="):
        with pytest.raises(InputError, match="hub:OWNER/NAME"):
            read_rollouts(wrong)
