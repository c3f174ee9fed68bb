"""Rows of attention recomputed from queries and keys, averaged over heads and layers.

`LayerAttention` holds what one layer's softmax is made of, however its backend was told to mask: not at all, by
booleans, by what is added to the scores, by a rule on indices, by a window or by segments. `AttentionPanels` averages
the chosen heads of the chosen layers, a panel of rows at a time, in float32. Rows are whole softmax rows, so no
log-sum-exp has to be stored, and no map of a head outlives its panel. On a GPU the mean comes out of `kernels`, which
never writes such a map; `AttentionPanels` is the only place that chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int

_ROWS_LOOKED_AT = 128
"""Rows of a mask that are looked at in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAttention:
    """What one layer's softmax is made of."""

    layer: int
    query_BHTD: Float[Tensor, "B H T D"]
    key_BKTD: Float[Tensor, "B K T D"]
    scale: float
    mask: Bool[Tensor, "#B #H T T"] | Float[Tensor, "#B #H T T"] | Callable[..., Tensor] | None
    """Allowed pairs, or what is added to the scores, or a rule on indices; None: causal."""
    segments_BT: Int[Tensor, "B T"] | None = None
    """With no mask: tokens attend within their own segment only, and segment 0 is padding."""
    window: int | None = None
    """With no mask: how many latest tokens, its own included, a token attends to."""
    softcap: float | None = None
    sinks_H: Float[Tensor, " H"] | None = None
    """A learned extra logit of each head; it takes its share of the softmax and is no token."""
    position_bias: Float[Tensor, "#B #H T T"] | None = None
    chosen: tuple[int, ...] | None = None
    """Which of the layer's heads these are; None: all."""

    @property
    def heads(self) -> tuple[int, ...]:
        """The layer's own numbers of these heads."""
        return tuple(range(self.query_BHTD.shape[1])) if self.chosen is None else self.chosen

    def scores(self, start: int, stop: int) -> Float[Tensor, "B H P C"]:
        """Masked logits of rows `start..stop` over columns `0..stop`; -inf where attention is not allowed."""
        # bf16 products would carry an error of 1e-2 into the softmax.
        query_BHPD = self.query_BHTD[:, :, start:stop].float() * self.scale
        key_BKCD = self.key_BKTD[:, :, :stop].float()
        batch, heads, rows, width = query_BHPD.shape
        shared = heads // key_BKCD.shape[1]
        scores = query_BHPD.reshape(batch, -1, shared * rows, width) @ key_BKCD.mT
        scores = scores.view(batch, heads, rows, stop)
        if self.softcap is not None:
            scores = scores.div_(self.softcap).tanh_().mul_(self.softcap)
        if self.position_bias is not None:
            scores += self.position_bias[..., start:stop, :stop]
        return self._masked(scores, start, stop)

    def _masked(self, scores: Float[Tensor, "B H P C"], start: int, stop: int) -> Float[Tensor, "B H P C"]:
        if self.mask is None:
            future_PP = torch.ones(2 * [stop - start], dtype=torch.bool, device=scores.device).triu(1)
            scores[..., start:].masked_fill_(future_PP, -torch.inf)
            if self.window is not None:
                rows_P1 = torch.arange(start, stop, device=scores.device)[:, None]
                columns_C = torch.arange(stop, device=scores.device)
                scores.masked_fill_(columns_C <= rows_P1 - self.window, -torch.inf)
            if self.segments_BT is not None:
                row_B1P1 = self.segments_BT[:, None, start:stop, None]
                column_B11C = self.segments_BT[:, None, None, :stop]
                scores.masked_fill_((row_B1P1 != column_B11C) | (column_B11C == 0), -torch.inf)
            return scores
        mask = self.mask if isinstance(self.mask, Tensor) else self._evaluate_rule(self.mask, scores, start)
        mask = mask if mask.shape[-2:] == scores.shape[-2:] else mask[..., start:stop, :stop]
        if mask.dtype == torch.bool:
            return scores.masked_fill_(~mask, -torch.inf)
        # Additive masks say "never" with the smallest number of their type, not with -inf.
        return scores.add_(mask).masked_fill_(mask <= torch.finfo(mask.dtype).min / 2, -torch.inf)

    def _evaluate_rule(self, rule: Callable[..., Tensor], scores: Tensor, start: int) -> Tensor:
        """A flex-attention mask rule `(batch, head, query, key) -> allowed` on a panel's indices."""
        index = [torch.arange(n, device=scores.device) for n in scores.shape]
        b, h, q, k = torch.meshgrid(*index, indexing="ij")
        return rule(b, h, q + start, k)

    def looks_ahead(self) -> bool:
        """Whether the mask lets any token attend to a later one."""
        if self.mask is None:
            return False
        batch, heads, length, _ = self.query_BHTD.shape
        for start in range(0, length, _ROWS_LOOKED_AT):
            stop = min(start + _ROWS_LOOKED_AT, length)
            if isinstance(self.mask, Tensor):
                rows = self.mask[..., start:stop, :length]
                allowed = rows if rows.dtype == torch.bool else rows > torch.finfo(rows.dtype).min / 2
            else:
                shape = self.query_BHTD.new_empty(1).expand(batch, heads, stop - start, length)
                allowed = self._evaluate_rule(self.mask, shape, start)
            if bool(allowed.triu(start + 1).any()):
                return True
        return False

    def weights(self, start: int, stop: int) -> Float[Tensor, "B H P C"]:
        """Attention of rows `start..stop`, by head; rows that may attend to nothing are zero."""
        scores = self.scores(start, stop)
        # Only a mask can leave a row nothing to attend to; NaN in the scores themselves must stay visible.
        masked = self.mask is not None or self.segments_BT is not None
        empty = scores.amax(-1, keepdim=True) == -torch.inf if masked else None
        if self.sinks_H is not None:
            sink = self.sinks_H.float()[:, None, None].expand(*scores.shape[:3], 1)
            weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
        elif scores.requires_grad:
            weights = scores.softmax(-1)
        else:  # in place: half the memory, and less time where a panel outgrows the cache
            weights = torch.softmax(scores, -1, out=scores)
        return weights if empty is None else weights.masked_fill(empty, 0.0)

    def with_heads(self, heads: Sequence[int]) -> LayerAttention:
        """Only the chosen heads."""
        count = len(self.heads)
        if not heads or not all(0 <= h < count for h in heads):
            raise InputError(f"expected heads of layer {self.layer} within 0..{count - 1}, got {list(heads)}")
        index = torch.tensor(list(heads), device=self.query_BHTD.device)
        per_head: dict[str, Any] = {
            name: value[:, index] if value.shape[1] > 1 else value
            for name in ("mask", "position_bias")
            if isinstance(value := getattr(self, name), Tensor)
        }
        per_head |= self._renumbered_rule(heads=index)
        return replace(
            self,
            chosen=tuple(self.heads[h] for h in heads),
            query_BHTD=self.query_BHTD[:, index],
            key_BKTD=self.key_BKTD[:, index // (count // self.key_BKTD.shape[1])],
            sinks_H=None if self.sinks_H is None else self.sinks_H[index],
            **per_head,
        )

    def with_sequences(self, sequences: Sequence[int]) -> LayerAttention:
        """Only some sequences of the batch."""
        index = torch.tensor(list(sequences), device=self.query_BHTD.device)
        per_sequence: dict[str, Any] = {
            name: value[index]
            for name in ("mask", "position_bias", "segments_BT")
            if isinstance(value := getattr(self, name), Tensor) and len(value) > 1
        }
        per_sequence |= self._renumbered_rule(sequences=index)
        return replace(self, query_BHTD=self.query_BHTD[index], key_BKTD=self.key_BKTD[index], **per_sequence)

    def segment(self, row: int, start: int, stop: int) -> LayerAttention:
        """Tokens `start..stop` of one row of the batch, for sequences that were packed into it."""
        return self.part(slice(row, row + 1), start, stop)

    def part(self, rows: slice | Int[Tensor, " N"], start: int, stop: int) -> LayerAttention:
        """Tokens `start..stop` of some rows of the batch."""
        cut: dict[str, Any] = {
            name: (value[rows] if len(value) > 1 else value)[..., start:stop, start:stop]
            for name in ("mask", "position_bias")
            if isinstance(value := getattr(self, name), Tensor)
        }
        index = torch.arange(len(self.query_BHTD), device=self.query_BHTD.device)[rows]
        cut |= self._renumbered_rule(sequences=index, first=start)
        return replace(
            self,
            query_BHTD=self.query_BHTD[rows, :, start:stop],
            key_BKTD=self.key_BKTD[rows, :, start:stop],
            segments_BT=None if self.segments_BT is None else self.segments_BT[rows, start:stop],
            **cut,
        )

    def _renumbered_rule(
        self, *, sequences: Int[Tensor, " B"] | None = None, heads: Int[Tensor, " H"] | None = None, first: int = 0
    ) -> dict[str, Any]:
        """A mask that is a rule knows the layer's own numbers: of sequences, heads, and tokens from `first` on."""
        rule = self.mask
        if rule is None or isinstance(rule, Tensor):
            return {}

        def renumbered(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            own_b, own_h = b if sequences is None else sequences[b], h if heads is None else heads[h]
            return rule(own_b, own_h, q + first, k + first)

        return {"mask": renumbered}
