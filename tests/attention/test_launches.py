"""How many operations the sweeps take a panel: what a GPU has to launch, whatever the length."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flowtracer.flow import MatrixPanels
from flowtracer.flow.solve import solve

A_PANEL = 15
"""Both sweeps of one panel: what docs/capture.md says. MatrixPanels take one operation of their own in each."""


class Counted(TorchDispatchMode):
    """Counts what computes; views do not."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def launches(panel_rows):
    attention = torch.rand(1, 64, 64).tril(-1) / 64
    question, answer = torch.zeros(2, 1, 64, dtype=torch.bool)
    question[:, :8], answer[:, -2:] = True, True
    with Counted() as counted:
        solve(MatrixPanels(attention, panel_rows=panel_rows), question, answer)
    return counted.names


def test_every_panel_takes_the_same_few():
    one, two, four = (launches(rows) for rows in (64, 32, 16))
    assert len(four) - len(two) == 2 * (len(two) - len(one)), "a fixed number a panel"
    assert len(two) - len(one) == A_PANEL, two
