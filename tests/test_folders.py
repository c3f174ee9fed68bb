"""Output folders that a run can go on in."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from flowtracer.errors import FormatError, InputError, StorageError
from flowtracer.folders import LineFile, claim, digest, lock, storing, write_atomically
from limits import no_file_above

HOLD = """
import sys
from pathlib import Path
from flowtracer.folders import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `out`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path, holder):
    with (
        pytest.raises(InputError, match=f"no other process.*held by process {holder.pid}; wait"),
        lock(tmp_path / "out"),
    ):
        pass
    holder.stdin.close()
    holder.wait()
    for _ in range(2):
        with lock(tmp_path / "out"):
            assert (tmp_path / "out" / ".lock.pid").read_text() == f"{os.getpid()}\n"


def test_a_killed_process_leaves_no_lock(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock(tmp_path / "out"):
        pass


def test_a_process_is_refused_by_itself_too(tmp_path):
    with lock(tmp_path), pytest.raises(InputError, match=f"held by process {os.getpid()}"), lock(tmp_path):
        pass


def test_a_folder_is_claimed_once_and_for_the_same_options(tmp_path):
    folder = tmp_path / "deep" / "out"
    claim(folder, {"model": "nano", "shares": (0.1, 0.2)})
    claim(folder, {"model": "nano", "shares": [0.1, 0.2]})
    with pytest.raises(InputError, match='got model "other" instead of "nano", seed 1 instead of none; choose another'):
        claim(folder, {"model": "other", "shares": [0.1, 0.2], "seed": 1})
    with pytest.raises(InputError, match="got shares none instead of"):
        claim(folder, {"model": "nano", "seed": None})


def test_what_an_older_version_could_not_be_asked_for_is_the_same_as_not_asked_for(tmp_path):
    claim(tmp_path, {"credit": {"name": "flow"}})
    claim(tmp_path, {"credit": {"name": "flow", "answer_pattern": None}, "seed": None})
    with pytest.raises(InputError, match=r"got credit .*Result.* instead of"):
        claim(tmp_path, {"credit": {"name": "flow", "answer_pattern": "Result: (.+)"}})


@pytest.mark.parametrize("content", ['{"model": "na', "", "[1]", "\x00"])
def test_a_note_of_options_that_cannot_be_read(tmp_path, content):
    (tmp_path / "options.json").write_text(content)
    with pytest.raises(FormatError, match="expected the options that the folder was made with in"):
        claim(tmp_path, {"model": "nano"})


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder that can be written"):
        claim(tmp_path / "file", {})
    with pytest.raises(InputError, match="folder that can be written"), lock(tmp_path / "file"):
        pass


def test_a_file_is_written_whole_with_the_mode_of_others(tmp_path):
    (tmp_path / "plain").write_text("")
    for content in ("ä\n", b"\xff", "again\n"):
        file = write_atomically(tmp_path / "file", content)
        assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder", "plain"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(JSON, JSON)
def test_digests_are_equal_where_values_are(one, other):
    again = json.loads(json.dumps(one))
    if isinstance(again, dict):
        again = dict(reversed(again.items()))
    assert digest(one) == digest(again)
    assert (digest(one) == digest(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert digest(one, other) != digest([one, other])


@pytest.mark.parametrize("rest", ["", '{"n": 3', '{"n": 3}', '{"text": "ä'])
def test_lines_are_added_and_a_half_one_is_dropped(tmp_path, rest):
    path = tmp_path / "lines.jsonl"
    assert LineFile(path).lines() == []
    LineFile(path).add([{"n": 1}, {"n": 2, "text": "\u2028 ä"}])
    with path.open("a", encoding="utf-8") as file:
        file.write(rest)
    before = path.read_bytes()
    again = LineFile(path)
    assert again.lines() == [{"n": 1}, {"n": 2, "text": "\u2028 ä"}]
    assert path.read_bytes() == before, "who only reads writes nothing: the half line may be another's"
    again.add([{"n": 4}])
    assert [line["n"] for line in again.lines()] == [1, 2, 4]
    again.keep(lambda line: line["n"] < 4)
    again.add([{"n": 3}])
    assert [line["n"] for line in LineFile(path).lines()] == [1, 2, 3]


def test_a_key_tells_lines_apart(tmp_path):
    file = LineFile(tmp_path / "lines.jsonl")
    file.add([{"n": 1, "x": 2}, {"n": 2, "x": 2}])
    assert file.by("n") == {1: {"n": 1, "x": 2}, 2: {"n": 2, "x": 2}}
    with pytest.raises(FormatError, match=r"each x once in .*, got 2 again in line 2"):
        file.by("x")
    with pytest.raises(FormatError, match="a field 'y' in line 1"):
        file.by("y")


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("{}\nhello\n")
    with pytest.raises(FormatError, match="JSON in line 2"):
        LineFile(path).lines()
    path.write_text("[1]\n")
    with pytest.raises(FormatError, match="object in line 1"):
        LineFile(path).lines()


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    file = write_atomically(tmp_path / "file", "old")
    with no_file_above(100), pytest.raises(StorageError, match=f"room for results in '{tmp_path}', got File too large"):
        write_atomically(file, "x" * 101)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


@given(limit=st.integers(0, 200), count=st.integers(1, 8))
def test_lines_that_do_not_fit_are_added_when_there_is_room(tmp_path_factory, limit, count):
    lines = [{"n": n, "text": "x" * 20} for n in range(count)]
    file = LineFile(tmp_path_factory.mktemp("lines") / "lines.jsonl")
    added = []
    with no_file_above(limit):
        for line in lines:
            try:
                file.add([line])
            except StorageError:
                break
            added.append(line)
    assert file.lines() == added
    file.add(lines[len(added) :])
    assert file.lines() == LineFile(file.path).lines() == lines


def test_a_full_disk_says_so(tmp_path):
    with (
        pytest.raises(StorageError, match="No space left on device"),
        storing(tmp_path),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x")


def test_what_a_library_written_in_rust_says_is_understood(tmp_path):
    with no_file_above(100), pytest.raises(StorageError, match="File too large"), storing(tmp_path):
        save_file({"x": np.zeros(100)}, tmp_path / "x.safetensors")


def test_a_folder_that_vanishes_while_it_is_held(tmp_path):
    lines = LineFile(tmp_path / "out" / "lines.jsonl")
    with pytest.raises(StorageError, match="a folder that is gone"), lock(tmp_path / "out"):
        lines.add(shutil.rmtree(tmp_path / "out") or [{}])
    with pytest.raises(StorageError, match="No such file"), lock(tmp_path / "out"):
        (tmp_path / "out" / "traces" / "x").write_text("")


@pytest.mark.parametrize(
    "error", [ValueError("x"), InputError("x"), FileNotFoundError(2, "x", "/elsewhere"), KeyError("x")]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as found, storing(tmp_path):
        raise error
    assert found.value is error
