"""Flow over the sequences that a trainer has just sampled: token ids in, throughput of the response tokens out.

1. Attention comes from a forward over the rows that have an answer, a few at a time: one that somebody runs anyway, or
   a truncated one of our own (`flowtracer.signals.passes`), which capacities that ask for values always take.
2. Two sweeps over the panels; no edges are read off, so nothing of size T x T outlives those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowtracer.attention.capacity import CAPACITIES, CapacityPanels, LayeredPanels
from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.shared_prefix import attention_panels
from flowtracer.credit.signals import FlowSignals, Readings, Reads
from flowtracer.flow.layer_panels import layers_within_budget
from flowtracer.flow.layered import LayeredSolution, solve_layered
from flowtracer.flow.solution import PanelSource, Solution
from flowtracer.flow.solve import DENSE_BYTES, solve, within_budget
from flowtracer.model.capture import AttentionReader
from flowtracer.model.contributions import ContributionReader
from flowtracer.shapes import Bool
from flowtracer.signals.passes import Pending
from flowtracer.signals.sampled import Few, Sampled


class PendingFlow(Pending):
    """Throughput of every response token, from the whole prompt to the answer, and which responses it reaches.

    Args:
        reader: Reads the model's attention.
        sampled: The sequences.
        answer_BR: The response's own answer; a sequence without one wants no attention.
        reads: The strategy's: where the flow ends, its capacity and its graph, as of the reader.
    """

    def __init__(
        self,
        reader: AttentionReader | ContributionReader,
        sampled: Sampled,
        answer_BR: Bool[Tensor, "B R"],
        reads: Reads,
    ) -> None:
        columns_R = torch.arange(1, answer_BR.shape[1] + 1, device=sampled.device)
        super().__init__(reader, sampled, (answer_BR * columns_R).amax(-1))  # nothing flows behind an answer
        self._answer_BR = answer_BR
        self._reads = reads
        self._throughput_BR = torch.zeros(answer_BR.shape, device=sampled.device)
        self._traced_B = torch.zeros(len(sampled), dtype=torch.bool, device=sampled.device)

    def score(self, few: Few, layers: Sequence[LayerAttention]) -> None:
        """Solve for a few sequences."""
        stop = few.ids_BT.shape[1] - few.first
        sink_BT = torch.nn.functional.pad(self._answer_BR[few.numbers, :stop], (few.first, 0))
        if not bool(sink_BT.any()):  # read only to keep step with other processes
            return
        if self._reads.at == "prediction":
            sink_BT = sink_BT.roll(-1, 1)
        question_BT = few.mask_BT.bool().clone()
        question_BT[:, few.first :] = False
        solution = self._solve(few, layers, question_BT, sink_BT)
        valid_B = solution.finite_B & solution.connected_B
        found_BR = torch.where(valid_B[:, None], solution.throughput_BT, 0.0)[:, few.first :]
        device = self.sampled.device
        self._throughput_BR[few.numbers, :stop] = found_BR.float().to(device)
        self._traced_B[few.numbers] = valid_B.to(device)

    def _solve(
        self, few: Few, layers: Sequence[LayerAttention], question_BT: Tensor, sink_BT: Tensor
    ) -> Solution | LayeredSolution:
        capacities = [CAPACITIES[self._reads.capacity](layer) for layer in layers]
        if self._reads.graph == "layered":
            stack = layers_within_budget(LayeredPanels(capacities), DENSE_BYTES)
            return solve_layered(stack, question_BT, sink_BT, ends=self._reads.ends)
        panels: PanelSource
        if self._reads.capacity == "attention":
            panels = attention_panels(layers, few.content_BT, few.mask_BT)
        else:
            panels = CapacityPanels(capacities)
        return solve(within_budget(panels), question_BT, sink_BT)

    def add_to(self, readings: Readings) -> Readings:
        """Throughput, and which responses were traced."""
        return replace(readings, flow=FlowSignals(throughput_BR=self._throughput_BR, traced_B=self._traced_B))
