"""Flow over the sequences that a trainer has just sampled: token ids in, throughput of the response tokens out.

1. One truncated forward over the rows that have an answer, in slices of a fixed size.
2. Two sweeps over the panels; no edges are read off, so nothing of size T x T outlives a slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.attention import AttentionPanels
from flowtracer.capture import AttentionReader
from flowtracer.flow import solve, within_budget
from flowtracer.shapes import Bool, Float
from flowtracer.signals.sampled import Sampled


def read_flow(
    reader: AttentionReader,
    sampled: Sampled,
    answer_BR: Bool[Tensor, "B R"],
    *,
    at: str = "token",
    rows_per_forward: int = 8,
    every_rank_alike: bool = False,
) -> tuple[Float[Tensor, "B R"], Bool[Tensor, " B"]]:
    """Throughput of every response token, from the whole prompt to the answer, and which responses it reaches.

    Args:
        reader: Reads the model's attention.
        sampled: The sequences.
        answer_BR: The response's own answer.
        at: The flow ends at the answer's "token"s, or at the positions of their "prediction".
        rows_per_forward: Sequences in one forward.
        every_rank_alike: Run the same number of whole forwards whatever was found: a model sharded over processes
            hangs otherwise.
    """
    throughput_BR = torch.zeros(answer_BR.shape, device=sampled.device)
    traced_B = torch.zeros(len(sampled), dtype=torch.bool, device=sampled.device)
    answered = answer_BR.any(-1).nonzero().squeeze(-1)
    for rows in sampled.slices(rows_per_forward, None if every_rank_alike else answered):
        ends = answer_BR[rows].any(0).nonzero()
        stop = int(ends[-1]) + 1 if len(ends) else None
        few = sampled.rows(rows, stop)
        layers = few.attend(reader, stop_early=not every_rank_alike)
        if stop is None:  # no answer here, but the other ranks waited for this forward
            continue
        sink_BT = torch.nn.functional.pad(answer_BR[rows, :stop], (few.first, 0))
        if at == "prediction":
            sink_BT = sink_BT.roll(-1, 1)
        question_BT = few.mask_BT.bool().clone()
        question_BT[:, few.first :] = False
        solution = solve(within_budget(AttentionPanels(layers)), question_BT, sink_BT)
        valid_B = solution.finite_B & solution.connected_B
        found_BR = torch.where(valid_B[:, None], solution.throughput_BT, 0.0)[:, few.first :]
        throughput_BR[rows, :stop], traced_B[rows] = found_BR.float().to(sampled.device), valid_B.to(sampled.device)
    return throughput_BR, traced_B
