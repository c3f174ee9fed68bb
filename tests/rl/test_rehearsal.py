"""A step over a small model says whether TRL can train with a run file's options, before the run's model is loaded."""

import pytest
from safetensors.torch import load_file

from flowtracer.errors import InputError
from flowtracer.rl.rehearsal import rehearse
from flowtracer.rl.run import read_run_file, train
from run_files import small_run

pytestmark = pytest.mark.filterwarnings("default::FutureWarning", "default::UserWarning", "default::DeprecationWarning")


def run_file(folder, model, *options):
    file = folder / "run.toml"
    file.write_text(small_run(model, folder / "out", *options))
    return read_run_file(file)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ('loss_type = "x"', "Unknown loss type"),
        ('scale_rewards = "x"', "Must be one of"),
        ('importance_sampling_level = "x"', "Possible values are"),
        ("top_k = -1", "strictly positive"),
        ("adam_beta1 = 2.0", "Invalid beta parameter"),
        ("dataloader_num_workers = -1", "non-negative"),
    ],
)
def test_what_trl_fails_at_is_named_before_a_model_is_loaded(tmp_path, option, reason):
    run = run_file(tmp_path, "no/such/model", "beta = 0.0", option)
    name = option.split(" = ")[0]
    with pytest.raises(InputError, match=f"expected {name} under .grpo. that TRL can train with, got .*{reason}"):
        train(run)


def test_options_that_train_lead_on_to_the_model(tmp_path):
    run = run_file(tmp_path, "no/such/model", 'loss_type = "dr_grpo"', "top_k = 5", "beta = 0.04", "temperature = 0.9")
    with pytest.raises(InputError, match="expected a hub id, a folder"):
        train(run)


def test_a_rehearsal_leaves_no_trace_on_the_run(model, tmp_path):
    """The default written out is one option more, which is rehearsed; sizes alone are not."""
    weights = []
    for name, options in (("plain", ()), ("rehearsed", ("epsilon = 0.2", "learning_rate = 1e-3"))):
        folder = tmp_path / name
        folder.mkdir()
        final = train(run_file(folder, model, *(options or ("learning_rate = 1e-3",))))
        weights.append(load_file(final / "model.safetensors"))
    plain, rehearsed = weights
    assert all(plain[name].equal(rehearsed[name]) for name in plain)


def test_what_fails_without_any_option_is_nobodys_mistake():
    def build(options, folder):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        rehearse({"beta": 0.1, "top_k": 5}, build)


def test_options_that_fail_by_themselves_are_both_named():
    class Trained:
        def add_callback(self, callback):
            pass

        def train(self):
            pass

    def build(options, folder):
        if options.get("beta") == 0.1 or options.get("top_k") == 5:
            raise KeyError("x")
        return Trained()

    with pytest.raises(InputError, match=r"expected options under .grpo. that TRL can train with, got .*beta.*top_k"):
        rehearse({"beta": 0.1, "top_k": 5}, build)
