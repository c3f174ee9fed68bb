"""The one tolerance table: how far two ways to the same number may be apart, by the type that attention is held in.

Reach and flow are sums of products of non-negative numbers, so relative errors do not grow by cancellation: they are a
few roundings of the entries of `W`, times the length of a walk. No environment loosens this.
"""

import torch

RELATIVE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}
ABSOLUTE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}


def assert_close(got, expected, dtype=torch.float64):
    """Equal within the table's row for `dtype`, whatever the two are stored in."""
    torch.testing.assert_close(
        torch.as_tensor(got, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=RELATIVE[dtype],
        atol=ABSOLUTE[dtype],
        equal_nan=False,
    )
