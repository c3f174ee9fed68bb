"""The example of a strategy of one's own runs as it stands."""

import importlib.util
from pathlib import Path

import pytest

from tiny import tiny_model, tiny_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_credit.py"


@pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")
def test_the_example_trains(tmp_path):
    spec = importlib.util.spec_from_file_location("own_credit", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    trainer = example.train(str(tmp_path / "model"), 1, str(tmp_path / "out"))
    line = trainer.state.log_history[0]
    assert 0.5 <= line["credit/mean_factor"] <= 1
    assert line["credit/boosted_share"] == 0
