"""Models told from others of the same name."""

import os
import shutil
from types import SimpleNamespace

import pytest

from flowtracer.model import load
from flowtracer.model.load import load_model, model_digest


def test_a_folder_is_another_model_once_it_was_trained(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    loaded, _ = load_model(str(folder))
    before = model_digest(str(folder), loaded)
    assert before == model_digest(model, loaded), "a copy is the same model"
    (folder / ".lock").write_text("")
    (folder / "checkpoint-1").mkdir()
    assert model_digest(str(folder), loaded) == before
    loaded.lm_head.weight.data += 1
    loaded.save_pretrained(folder)
    assert model_digest(str(folder), loaded) != before


@pytest.mark.parametrize("change", ["content", "date"])
def test_large_files_are_told_apart_by_size_and_date(tmp_path, monkeypatch, change):
    monkeypatch.setattr(load, "_READ_WHOLE", 4)
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    before = model_digest(str(file), None)
    assert model_digest(str(file), None) == before
    if change == "content":
        file.write_bytes(b"longer weights")
    else:
        os.utime(file, (1, 1))
    assert model_digest(str(file), None) != before


def test_a_hub_id_is_told_by_its_commit():
    one, other = (SimpleNamespace(config=SimpleNamespace(_commit_hash=commit)) for commit in ("a1", "b2"))
    assert model_digest("org/name", one) == model_digest("org/name", one)
    assert len({model_digest("org/name", one), model_digest("org/name", other), model_digest("org/more", one)}) == 3


def test_nano_is_its_files():
    assert model_digest("nano", None) == model_digest(str(load.PACKAGED["nano"]), None)
