import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import FormatError, InputError
from flowtracer.records import TokenTableWriter, read_rollouts, safe_name
from flowtracer.trace import Rollout, Skipped
from test_trace import make_trace

USER = [{"role": "user", "content": "q"}]


def jsonl(tmp_path, *records):
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "p", "response": "r"}, Rollout(prompt="p", response="r", id="1")),
        ({"prompt": USER, "response": "r", "id": "a"}, Rollout(prompt=USER, response="r", id="a")),
        (
            {
                "prompt": USER,
                "completion": [{"role": "assistant", "content": "c"}],
                "advantage": 0.5,
                "step": 3,
            },
            Rollout(prompt=USER, response="c", id="1", metadata={"advantage": 0.5, "step": 3}),
        ),
        (
            {"input": "<s>q", "output": "o", "gts": "4", "score": 1.0, "step": 2},
            Rollout(prompt="<s>q", response="o", id="1", metadata={"gts": "4", "score": 1.0, "step": 2}),
        ),
        (
            {"question": "q", "solution": "s", "uid": 9},
            Rollout(prompt=USER, response="s", id="9", metadata={"uid": 9}),
        ),
        (
            {"problem": "q", "response": "s", "answer": "4"},
            Rollout(prompt=USER, response="s", id="1", metadata={"answer": "4"}),
        ),
    ],
)
def test_layouts(tmp_path, record, expected):
    assert list(read_rollouts(jsonl(tmp_path, record))) == [expected]


def test_graded_solutions_become_one_rollout_each(tmp_path):
    record = {
        "question": "q",
        "ground_truth": "3\nA: 3",
        "small": {"is_correct": False, "solution": "1 + 1 = <<1+1=2>>2\nA: 2"},
        "large": {"is_correct": True, "solution": "A: 3"},
    }
    small, large = read_rollouts(jsonl(tmp_path, record))
    assert (small.response, small.metadata) == ("1 + 1 = 2\nA: 2", {"source": "small", "is_correct": False})
    assert (large.id, large.metadata["is_correct"]) == ("1-large", True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "p", "resp', "broken_json"),
        (b'{"prompt": "\xff\xfe"}', "broken_json"),
        (b"[" * 100_000, "broken_json"),
        (b'["prompt"]', "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"prompt": "p"}', "unknown_layout"),
        (b"{}", "unknown_layout"),
        (b'{"prompt": 3, "response": "r"}', "bad_field"),
        (b'{"prompt": [], "response": "r"}', "bad_field"),
        (b'{"prompt": [{"role": "user"}], "response": "r"}', "bad_field"),
        (b'{"prompt": "p", "response": null}', "bad_field"),
        (b'{"prompt": "p", "completion": []}', "bad_field"),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path, line, reason):
    file = tmp_path / "r.jsonl"
    good = json.dumps({"prompt": "p", "response": "r"}).encode()
    file.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\n" + line + b"\n" + good)
    first, bad, last = read_rollouts(file)
    assert isinstance(bad, Skipped)
    assert (bad.id, bad.reason) == ("r.jsonl:3", reason)
    assert bad.message.startswith("expected")
    assert (first.id, last.id) == ("1", "4")


def test_parquet_and_json_read_as_jsonl_does(tmp_path):
    records = [{"prompt": USER, "completion": "c", "step": 1}, {"prompt": USER, "completion": "d", "step": 2}]
    expected = list(read_rollouts(jsonl(tmp_path, *records)))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "r.parquet")
    (tmp_path / "r.json").write_text(json.dumps(records))
    assert list(read_rollouts(tmp_path / "r.parquet")) == expected
    assert list(read_rollouts(tmp_path / "r.json")) == expected


def test_limit(tmp_path):
    file = jsonl(tmp_path, *[{"prompt": "p", "response": "r"}] * 5)
    assert len(list(read_rollouts(file, limit=3))) == 3


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.jsonl", None, InputError, "no file"),
        ("r.csv", b"a,b", InputError, "ends in .jsonl, .json, .parquet"),
        ("r.parquet", b"no parquet", FormatError, "Parquet"),
        ("r.json", b"{", FormatError, "JSON"),
        ("r.json", b"{}", FormatError, "list of records"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        list(read_rollouts(tmp_path / name))


HOSTILE_NAMES = [
    "",
    "../../etc/passwd",
    "a/b",
    "a\0b",
    "CON",
    "con",
    "A",
    "a",
    "x" * 10_000,
    "é",
    "\ud800",
    ".",
    "1",
    "1-x",
]


def test_names_are_safe_and_distinct():
    names = [safe_name(text) for text in HOSTILE_NAMES]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in names)
    assert all(len(name) <= 64 for name in names)
    assert safe_name("12-small") == "12-small"


@given(st.text(max_size=30), st.text(max_size=30))
def test_different_texts_get_different_names(one, other):
    assert (safe_name(one).lower() == safe_name(other).lower()) == (one == other)


def test_token_table(tmp_path):
    trace = make_trace(text="q: 1 \ud800 = 3")
    with TokenTableWriter(tmp_path / "t.parquet") as table:
        table.write("a", trace)
        table.write("b", trace)
    rows = pq.read_table(tmp_path / "t.parquet").to_pydict()
    assert rows["trace"] == ["a"] * 4 + ["b"] * 4
    assert rows["region"][:4] == ["prompt", "reasoning", "reasoning", "answer"]
    assert rows["step"][:4] == [0, 1, 1, 1]
    np.testing.assert_array_equal(rows["throughput"][:4], trace.throughput)


def test_an_interrupted_table_leaves_nothing(tmp_path):
    def write(table):
        table.write("a", make_trace())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), TokenTableWriter(tmp_path / "t.parquet") as table:
        write(table)
    assert list(tmp_path.iterdir()) == []


def test_a_table_needs_its_folder(tmp_path):
    with (
        pytest.raises(InputError, match="folder that can be written"),
        TokenTableWriter(tmp_path / "no" / "t.parquet"),
    ):
        pass
