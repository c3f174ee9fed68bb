"""The largest edges of a graph that is seen a panel at a time, cut to a limit so that memory knows no length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowtracer.shapes import Float
from flowtracer.trace.backbone import Edges


class LargestEdges:
    """The largest edges so far, and how large an edge must be to be one of them.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Tensor] = []
        self._count = 0
        self._floor = 0.0
        self._carrying: int | Tensor = 0

    def add(self, phi_PC: Float[Tensor, "P C"], start: int, first_source: int = 0) -> None:
        """Offer a panel of rows from number `start` on: targets by sources, whose numbers begin at `first_source`."""
        flat = phi_PC.flatten()
        self._carrying = self._carrying + (flat > 0).sum()
        found = flat.nonzero().squeeze(-1) if self._floor == 0 else (flat > self._floor).nonzero().squeeze(-1)
        if len(found) > self._limit:
            found = flat.topk(self._limit, sorted=False).indices
        columns = phi_PC.shape[1]
        # Float64 holds every number of a token exactly.
        self._kept.append(
            torch.stack(
                [
                    (found % columns + first_source).to(flat.dtype),
                    (found // columns + start).to(flat.dtype),
                    flat[found],
                ]
            )
        )
        self._count += len(found)
        if self._count > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        kept = torch.cat(self._kept, 1)
        kept = kept[:, kept[2].topk(self._limit).indices] if self._limit else kept[:, :0]
        self._kept, self._count = [kept], self._limit
        self._floor = float(kept[2, -1]) if self._limit else torch.inf

    def edges(self) -> Edges:
        """The largest first."""
        source, target, flow = torch.cat(self._kept, 1).cpu().numpy()
        order = np.argsort(-flow, kind="stable")[: self._limit]
        return Edges(
            source=source[order].astype(np.int64),
            target=target[order].astype(np.int64),
            flow=flow[order].astype(np.float64),
            complete=int(self._carrying) <= self._limit,
        )
