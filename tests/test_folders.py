"""Output folders that a run can go on in."""

import pytest

from flowtracer.errors import FormatError, InputError
from flowtracer.folders import LineFile, claim


def test_a_folder_is_claimed_once_and_for_the_same_options(tmp_path):
    folder = tmp_path / "deep" / "out"
    claim(folder, {"model": "nano", "shares": (0.1, 0.2)})
    claim(folder, {"model": "nano", "shares": [0.1, 0.2]})
    with pytest.raises(InputError, match="another model, seed; choose another folder"):
        claim(folder, {"model": "other", "shares": [0.1, 0.2], "seed": 1})


def test_a_place_that_cannot_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder that can be written"):
        claim(tmp_path / "file", {})


@pytest.mark.parametrize("rest", ["", '{"n": 3', '{"n": 3}', '{"text": "ä'])
def test_lines_are_added_and_a_half_one_is_dropped(tmp_path, rest):
    path = tmp_path / "lines.jsonl"
    assert LineFile(path).lines() == []
    LineFile(path).add([{"n": 1}, {"n": 2, "text": "\u2028 ä"}])
    with path.open("a", encoding="utf-8") as file:
        file.write(rest)
    again = LineFile(path)
    assert again.lines() == [{"n": 1}, {"n": 2, "text": "\u2028 ä"}]
    again.add([{"n": 4}])
    assert [line["n"] for line in again.lines()] == [1, 2, 4]


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("{}\nhello\n")
    with pytest.raises(FormatError, match="JSON in line 2"):
        LineFile(path).lines()
    path.write_text("[1]\n")
    with pytest.raises(FormatError, match="object in line 1"):
        LineFile(path).lines()
