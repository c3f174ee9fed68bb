"""Every test runs offline, seeded, and with uninitialised memory that shows."""

import os

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
os.environ["TRITON_INTERPRET"] = "1"  # kernels run without a GPU; it must be set before they are loaded

import pytest
import torch
from hypothesis import settings

settings.register_profile("flowtracer", deadline=None, max_examples=60, derandomize=True, print_blob=False)
settings.load_profile("flowtracer")


@pytest.fixture(autouse=True)
def _strict_torch():
    torch.manual_seed(0)
    # Fills what torch.empty returns with NaN, so that nothing can be read before it was written.
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
