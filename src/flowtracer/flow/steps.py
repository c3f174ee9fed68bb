"""Flow between the steps of a text: sums of token edge flows, exact by linearity, gathered a panel at a time.

Steps tile the tokens, so a panel is summed over runs of its rows and then over runs of its columns. A row of sums is
whole once the last token of its step has been seen; it is then offered to the largest edges between steps, like a row
of token edges, and let go of. What one text holds at a time is a panel's rows by its steps and the edges that are kept:
the matrix of all steps by all steps grows with the square of the length as attention itself does, and is never made.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.flow.largest import LargestEdges
from flowtracer.shapes import Float, ndarray
from flowtracer.text.span import Span
from flowtracer.trace.backbone import Edges

STEP_EDGES = 250_000
"""Kept edges between steps: all of them up to 707 steps, or ten thousand tokens in sentences of fifteen."""


class StepFlow:
    """Flow between the steps of one sequence.

    Args:
        steps: Tokens of each step, in order and without gaps from the first token on.
        max_edges: Largest edges between steps that are kept.

    Raises:
        InputError: Steps that do not tile the tokens.
    """

    def __init__(self, steps: Sequence[Span], max_edges: int) -> None:
        if not steps or steps[0].start != 0 or any(one.stop != other.start for one, other in pairwise(steps)):
            raise InputError("expected steps that tile the tokens from the first on, got gaps, overlaps or none")
        if not all(len(span) for span in steps):
            raise InputError("expected steps of at least one token each, got an empty one")
        self._bounds = np.array([0, *(span.stop for span in steps)])
        self._largest = LargestEdges(max_edges)
        self._open_S = np.zeros(0)
        self._whole = 0
        self.within: Float[ndarray, " S"] = np.zeros(len(steps))
        """Flow along edges inside of each step."""

    def add(self, phi_PC: Float[Tensor, "P C"], start: int) -> None:
        """Take the edge flow into tokens from `start` on; panels come in order."""
        stop = min(start + len(phi_PC), int(self._bounds[-1]))
        if stop <= start:  # padding belongs to no step
            return
        first, last = (int(n) - 1 for n in np.searchsorted(self._bounds, [start, stop - 1], side="right"))
        counts = np.diff(self._bounds[first : last + 2].clip(start, stop))
        rows_PC = phi_PC[: stop - start, :stop]
        if rows_PC.device.type == "mps":  # which has no segment_reduce
            rows_PC = rows_PC.cpu()
        lengths = torch.from_numpy(counts).to(rows_PC.device)
        into_NC = torch.segment_reduce(rows_PC.contiguous(), "sum", lengths=lengths, axis=0, unsafe=True)
        flow_NS = np.add.reduceat(into_NC.cpu().numpy(), self._bounds[: last + 1], axis=1)
        flow_NS[0, : len(self._open_S)] += self._open_S  # what earlier panels saw of the same step
        ended = last - first + int(stop == self._bounds[last + 1])
        self._open_S = flow_NS[ended:].ravel()
        self._offer(flow_NS[:ended])

    def edges(self) -> Edges:
        """The largest edges between different steps, the largest first."""
        if len(self._open_S):
            self._offer(self._open_S[None])
            self._open_S = np.zeros(0)
        return self._largest.edges()

    def _offer(self, flow_NS: Float[ndarray, "N S"]) -> None:
        """Rows of the next steps, whole."""
        here = slice(self._whole, self._whole + len(flow_NS))
        self.within[here] = flow_NS.diagonal(self._whole)
        self._largest.add(torch.from_numpy(np.tril(flow_NS, self._whole - 1)), self._whole)
        self._whole = here.stop
