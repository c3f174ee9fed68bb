"""Models told from others of the same name, and everything that is none."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtracer.errors import InputError
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


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "banana", "mps", "meta", ""])
def test_a_device_that_this_machine_lacks(device):
    if torch.cuda.is_available() and device == "cuda":
        pytest.skip("this machine has one")
    with pytest.raises(InputError, match=f"expected a device of this machine, which has cpu.*, got {device!r}: "):
        load_model("nano", device=device)


@pytest.mark.parametrize(
    ("holds", "message"),
    [
        ([], "lacks config.json and tokenizer and holds nothing; pass the folder that save_pretrained wrote"),
        (["tokenizer.json", "x"], "lacks config.json and holds tokenizer.json, x;"),
        (["config.json"], "lacks tokenizer and holds config.json;"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path, holds, message):
    for name in holds:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=message):
        load_model(str(tmp_path))


def test_weights_that_end_early(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match="expected a hub id, a folder with"):
        load_model(str(folder))


@cache
def gguf_file():
    """A small file of the format, of a model that does not fit together."""
    import gguf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(8)
        writer.add_tensor("token_embd.weight", np.zeros((4, 8), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


@given(st.integers(0, 352), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4))
@settings(max_examples=20)
def test_a_gguf_file_that_is_none(tmp_path_factory, length, changes):
    data = bytearray(gguf_file()[:length])
    for place, byte in changes:
        if place < length:
            data[place] = byte
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"expected a whole \.gguf file"):
        load_model(str(file))


ASK = """
import sys
from flowtracer.errors import InputError
from flowtracer.model.load import load_model
try:
    load_model("no/such-model")
except InputError as error:
    print(error)
"""


def test_a_hub_that_is_away_is_asked_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls = []

        def hang_up():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                calls.append(connection)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address}
        said = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=environment, check=True)
    assert "expected a hub id" in said.stdout
    assert 0 < len(calls) <= 2, "a client connects again where it was hung up on; transformers would ask twelve times"
