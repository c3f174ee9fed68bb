"""Every test runs offline, seeded, and with uninitialised memory that shows."""

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
if os.environ.get("KERNELS_ON_GPU") != "1":  # which `make gpu` sets
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run without a GPU; it must be set before they are loaded
os.environ.pop("COLUMNS", None)  # parallel workers set it, and rich would hold on to it; each test says its own width

import pytest
import torch
from hypothesis import settings

from tiny import tiny_model, tiny_tokenizer

settings.register_profile("flowtracer", deadline=None, max_examples=60, derandomize=True, print_blob=False)
settings.load_profile("flowtracer")


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    # Fills what torch.empty returns with NaN, so that nothing can be read before it was written.
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder with a tiny model and its tokenizer, as commands load it."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)
