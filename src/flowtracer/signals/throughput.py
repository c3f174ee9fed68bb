"""Flow over the sequences that a trainer has just sampled: token ids in, throughput of the response tokens out.

1. Attention comes from a forward over the rows that have an answer, a few at a time: one that somebody runs anyway, or
   a truncated one of our own (`flowtracer.signals.reader.passes`).
2. Two sweeps over the panels; no edges are read off, so nothing of size T x T outlives those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.shared_prefix import attention_panels
from flowtracer.credit.signals import FlowSignals, Readings
from flowtracer.flow.solve import solve, within_budget
from flowtracer.model.capture import AttentionReader
from flowtracer.shapes import Bool
from flowtracer.signals.passes import Pending
from flowtracer.signals.sampled import Few, Sampled


class PendingFlow(Pending):
    """Throughput of every response token, from the whole prompt to the answer, and which responses it reaches.

    Args:
        reader: Reads the model's attention.
        sampled: The sequences.
        answer_BR: The response's own answer; a sequence without one wants no attention.
        at: The flow ends at the answer's "token"s, or at the positions of their "prediction".
    """

    def __init__(
        self, reader: AttentionReader, sampled: Sampled, answer_BR: Bool[Tensor, "B R"], *, at: str = "token"
    ) -> None:
        columns_R = torch.arange(1, answer_BR.shape[1] + 1, device=sampled.device)
        super().__init__(reader, sampled, (answer_BR * columns_R).amax(-1))  # nothing flows behind an answer
        self._answer_BR = answer_BR
        self._at = at
        self._throughput_BR = torch.zeros(answer_BR.shape, device=sampled.device)
        self._traced_B = torch.zeros(len(sampled), dtype=torch.bool, device=sampled.device)

    def score(self, few: Few, layers: Sequence[LayerAttention]) -> None:
        """Solve for a few sequences."""
        stop = few.ids_BT.shape[1] - few.first
        sink_BT = torch.nn.functional.pad(self._answer_BR[few.numbers, :stop], (few.first, 0))
        if not bool(sink_BT.any()):  # read only to keep step with other processes
            return
        if self._at == "prediction":
            sink_BT = sink_BT.roll(-1, 1)
        question_BT = few.mask_BT.bool().clone()
        question_BT[:, few.first :] = False
        solution = solve(within_budget(attention_panels(layers, few.content_BT, few.mask_BT)), question_BT, sink_BT)
        valid_B = solution.finite_B & solution.connected_B
        found_BR = torch.where(valid_B[:, None], solution.throughput_BT, 0.0)[:, few.first :]
        device = self.sampled.device
        self._throughput_BR[few.numbers, :stop] = found_BR.float().to(device)
        self._traced_B[few.numbers] = valid_B.to(device)

    def add_to(self, readings: Readings) -> Readings:
        """Throughput, and which responses were traced."""
        return replace(readings, flow=FlowSignals(throughput_BR=self._throughput_BR, traced_B=self._traced_B))
