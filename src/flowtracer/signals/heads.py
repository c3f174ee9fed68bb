"""What heads say about tokens, from row panels of their attention; no map of a whole layer ever exists.

Averaged over all heads of the chosen layers:

1. `received_s = sum_{t>s} W[t,s]` over the response's later tokens `t`;
2. `E_t`: entropy of the row of `t`, its own token included, over the log of the number of tokens before and with it.

By head (arXiv 2510.13554), with all three linear in attention, so that one pass keeps a number a token and a head:

3. mean distance `d = mean_t sum_s A[t,s] (t - s)` over the response's rows;
4. `WAAD_t = sum_s A[t,s] min(t - s, 10)`, averaged over the 30 % of heads with the least `d`;
5. `FAI_s = mean of A[t,s] for t in s+10 .. s+100` within the response, averaged over the 30 % with the greatest `d`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.credit.signals import AttentionSignals, HeadSignals, Readings
from flowtracer.model.capture import AttentionReader
from flowtracer.shapes import Bool, Float, Int
from flowtracer.signals.passes import Pending
from flowtracer.signals.sampled import Few, Sampled

LAYERS = 5
SHARE = 0.3
WINDOW = 10
HORIZON = (10, 100)


def spread_reader(model: object, layers: Sequence[int] | None) -> AttentionReader:
    """A reader of the given layers, or of five that are evenly spaced over the middle third."""
    if layers is not None:
        return AttentionReader(model, layers)
    middle = AttentionReader(model).layers
    places = torch.linspace(0, len(middle) - 1, min(LAYERS, len(middle))).round().long().tolist()
    return AttentionReader(model, [middle[place] for place in places])


class _PendingScores(Pending):
    """Two scores of every sequence's response tokens."""

    def __init__(self, reader: AttentionReader, sampled: Sampled) -> None:
        columns_R = torch.arange(1, sampled.response_ids_BR.shape[1] + 1, device=sampled.device)
        super().__init__(reader, sampled, (sampled.response_mask_BR * columns_R).amax(-1))
        self.one_BR, self.other_BR = torch.zeros(2, *sampled.response_ids_BR.shape, device=sampled.device)

    @abstractmethod
    def scores(self, layers: Sequence[LayerAttention], few: Few) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
        """The two, of a few sequences."""

    def score(self, few: Few, layers: Sequence[LayerAttention]) -> None:
        """Score a few sequences."""
        for whole_BR, part_BR in zip((self.one_BR, self.other_BR), self.scores(layers, few), strict=True):
            whole_BR[few.numbers, : part_BR.shape[1]] = part_BR.to(whole_BR.device)


class PendingAttention(_PendingScores):
    """Attention received, and row entropy."""

    def scores(self, layers: Sequence[LayerAttention], few: Few) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
        """`mean_scores`."""
        return mean_scores(layers, few)

    def add_to(self, readings: Readings) -> Readings:
        """The two."""
        return replace(readings, attention=AttentionSignals(received_BR=self.one_BR, row_entropy_BR=self.other_BR))


class PendingHeads(_PendingScores):
    """WAAD and FAI."""

    def scores(self, layers: Sequence[LayerAttention], few: Few) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
        """`head_scores`."""
        return head_scores(layers, few)

    def add_to(self, readings: Readings) -> Readings:
        """The two."""
        return replace(readings, heads=HeadSignals(local_distance_BR=self.one_BR, future_attention_BR=self.other_BR))


def mean_scores(layers: Sequence[LayerAttention], few: Few) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Attention received, and row entropy, of the response's tokens."""
    length, first = few.ids_BT.shape[1], few.first
    device = few.mask_BT.device
    received_BT, entropy_BT = torch.zeros(2, len(few.ids_BT), length, device=device)
    heads = sum(layer.query_BHTD.shape[1] for layer in layers)
    context_BT = few.mask_BT.cumsum(-1).float()
    for start, stop in _panels(layers, few):
        rows_BPC = sum(layer.weights(start, stop).sum(1).to(device) for layer in layers) / heads
        rows_BPC = rows_BPC * few.mask_BT[:, start:stop, None]
        received_BT[:, :stop] += rows_BPC.tril(start - 1).sum(1)
        # Sinks take part of a row, so its rest is made a distribution.
        shares_BPC = rows_BPC / rows_BPC.sum(-1, keepdim=True).clamp_min(1e-12)
        span_BP = context_BT[:, start:stop].log()
        entropy_BP = torch.special.entr(shares_BPC).sum(-1)
        entropy_BT[:, start:stop] = torch.where(span_BP > 0, entropy_BP / span_BP.clamp_min(1e-12), 0.0)
    return received_BT[:, first:], entropy_BT[:, first:]


def head_scores(layers: Sequence[LayerAttention], few: Few) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """WAAD by the short-sighted heads and FAI by the far-sighted ones, of the response's tokens."""
    length, first = few.ids_BT.shape[1], few.first
    device = few.mask_BT.device
    valid_BT = few.mask_BT.float()
    places_T = torch.arange(length, device=device)
    distances, looks_back, seen = [], [], []
    for layer in layers:
        batch, heads = layer.query_BHTD.shape[:2]
        distance_BH = torch.zeros(batch, heads, device=device)
        back_BHT, future_BHT = torch.zeros(2, batch, heads, length, device=device)
        for start, stop in _panels(layers, few):
            weights_BHPC = layer.weights(start, stop).to(device) * valid_BT[:, None, start:stop, None]
            gap_PC = (places_T[start:stop, None] - places_T[:stop]).clamp_min(0)
            distance_BH += torch.einsum("bhpc,pc->bh", weights_BHPC, gap_PC.float())
            near_PC = gap_PC.clamp_max(WINDOW).float()
            back_BHT[:, :, start:stop] = torch.einsum("bhpc,pc->bhp", weights_BHPC, near_PC)
            band_PC = ((gap_PC >= HORIZON[0]) & (gap_PC <= HORIZON[1])).float()
            future_BHT[:, :, :stop] += torch.einsum("bhpc,pc->bhc", weights_BHPC, band_PC)
        distances.append(distance_BH)
        looks_back.append(back_BHT[:, :, first:])
        seen.append(future_BHT[:, :, first:])
    distance_BH, back_BHR, future_BHR = torch.cat(distances, 1), torch.cat(looks_back, 1), torch.cat(seen, 1)
    count = max(1, round(SHARE * distance_BH.shape[1]))
    order_BH = distance_BH.argsort(dim=1, stable=True)
    waad_BR = _mean_of(back_BHR, order_BH[:, :count])
    fai_BR = _mean_of(future_BHR, order_BH[:, -count:]) / _rows_ahead(few.mask_BT[:, first:]).clamp_min(1)
    return waad_BR * valid_BT[:, first:], fai_BR * valid_BT[:, first:]


def _panels(layers: Sequence[LayerAttention], few: Few) -> Iterator[tuple[int, int]]:
    """Rows of the response, a panel at a time."""
    # Maps of heads are read here, and torch's panels are small enough to hold them.
    size, length = AttentionPanels(layers, implementation="torch").panel_rows, few.ids_BT.shape[1]
    yield from ((start, min(start + size, length)) for start in range(few.first, length, size))


def _mean_of(values_BHR: Float[Tensor, "B H R"], chosen_BN: Int[Tensor, "B N"]) -> Float[Tensor, "B R"]:
    """Mean over each row's own chosen heads."""
    return values_BHR.gather(1, chosen_BN[:, :, None].expand(-1, -1, values_BHR.shape[2])).mean(1)


def _rows_ahead(mask_BR: Bool[Tensor, "B R"] | Int[Tensor, "B R"]) -> Float[Tensor, "B R"]:
    """How many of the response's tokens stand within the horizon ahead of each."""
    length = mask_BR.shape[1]
    before_BR = torch.nn.functional.pad(mask_BR.long().cumsum(-1), (1, 0))  # tokens before column k
    places_R = torch.arange(length, device=mask_BR.device)
    from_R, to_R = ((places_R + edge).clamp_max(length) for edge in (HORIZON[0], HORIZON[1] + 1))
    return (before_BR[:, to_R] - before_BR[:, from_R]).float()
