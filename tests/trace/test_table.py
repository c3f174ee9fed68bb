import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.text.span import Span
from flowtracer.trace.table import TokenTableWriter
from traces import make_trace


def test_token_table(tmp_path):
    trace = make_trace(text="q: 1 \ud800 = 3")
    with TokenTableWriter(tmp_path / "t.parquet") as table:
        table.write("a", trace)
        table.write("\udfff", trace)
    read = pq.read_table(tmp_path / "t.parquet")
    rows = read.to_pydict()
    assert rows["trace"] == ["a"] * 4 + ["\ufffd"] * 4
    assert rows["position"] == [0, 1, 2, 3] * 2
    assert rows["token"][:4] == [token.replace("\ud800", "\ufffd") for token in trace.tokens]
    assert rows["region"][:4] == ["prompt", "reasoning", "reasoning", "answer"]
    assert rows["step"][:4] == [0, 1, 1, 1]
    assert rows["token_id"] == [0, 1, 2, 3] * 2
    for name in ("reach", "flow", "throughput", "fan_in", "fan_out"):
        np.testing.assert_array_equal(rows[name], np.tile(getattr(trace, name), 2))
    assert pa.types.is_dictionary(read.schema.field("region").type)


def test_what_follows_the_answer_is_told_apart(tmp_path):
    trace = make_trace(answer=Span(start=2, stop=3), sink=Span(start=2, stop=3))
    with TokenTableWriter(tmp_path / "t.parquet") as table:
        table.write("a", trace)
    regions = pq.read_table(tmp_path / "t.parquet")["region"].to_pylist()
    assert regions == ["prompt", "reasoning", "answer", "after"]


@given(
    measures=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    texts=st.lists(st.text(st.characters(), min_size=4, max_size=9), max_size=4),
)
def test_any_trace_fits_the_table(tmp_path_factory, measures, texts):
    file = tmp_path_factory.mktemp("table") / "t.parquet"
    flow = np.array(measures, dtype=np.float32)
    ids = np.arange(4, dtype=np.int32)
    with TokenTableWriter(str(file)) as table:
        for text in texts:
            table.write(text, make_trace(text=text, flow=flow, token_ids=ids))
    rows = pq.read_table(file).to_pydict()
    assert rows["flow"] == measures * len(texts)
    assert rows["position"] == [0, 1, 2, 3] * len(texts)


def test_rows_of_many_traces_share_a_group(tmp_path):
    with TokenTableWriter(tmp_path / "t.parquet") as table:
        for index in range(100):
            table.write(str(index), make_trace())
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups == 1


def test_full_groups_are_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(TokenTableWriter, "ROWS_PER_GROUP", 8)
    with TokenTableWriter(tmp_path / "t.parquet") as table:
        for index in range(5):
            table.write(str(index), make_trace())
    groups = pq.ParquetFile(tmp_path / "t.parquet")
    assert [groups.metadata.row_group(i).num_rows for i in range(groups.num_row_groups)] == [8, 8, 4]
    assert groups.read()["trace"].to_pylist() == [str(i) for i in range(5) for _ in range(4)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_table_leaves_what_was_there(tmp_path, error):
    file = tmp_path / "t.parquet"
    file.write_bytes(b"before")

    def write(table):
        table.write("a", make_trace())
        raise error

    with pytest.raises(error), TokenTableWriter(file) as table:
        write(table)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"before"


@pytest.mark.parametrize(("name", "message"), [("no/t.parquet", "folder that can be written"), (".", "name of a file")])
def test_a_table_needs_its_folder(tmp_path, name, message):
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputError, match=message), TokenTableWriter(folder / name):
        pass
    assert list(tmp_path.rglob("*")) == [folder]
