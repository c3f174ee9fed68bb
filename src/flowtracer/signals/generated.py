"""Attention that a model paid while it generated, so that no forward has to be run over what was sampled.

With a cache, each step of generation asks one query per sequence of the keys of all tokens so far. So

1. the queries of the chosen layers are kept as they come, and of the keys only the latest, which hold all of them;
2. token ids are kept too: what was sampled is read only where its tokens are the very ones that the model took in;
3. at the end a layer's queries are joined, and its mask is rebuilt from the padding. That is done only if the last step
   could see every token but padding: a window or a chunk that hid anything would have hidden something there.

The last sampled token is never taken in, so the sequences that need its row are left to another forward. Where nothing
can be read the reason is named: one of `LOST`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.model.capture import AttentionReader, intercept_attention, layer_attention
from flowtracer.shapes import Int
from flowtracer.signals.passes import Pending, agree, drops
from flowtracer.signals.sampled import Sampled

GENERATION_BYTES = 2 * 2**30
"""Queries and keys that may be kept of one generation, unless told otherwise: what a stored matrix of flow may take."""

LOST = ("over_budget", "short_cache", "other_tokens", "hidden_tokens", "differs")
"""Why attention cannot be read off a generation: what is kept would outgrow the budget; the cache keeps less than all
keys; what was sampled is not what the model took in, as where another engine samples; something other than padding was
hidden; or the model attends otherwise in a forward than while it generates."""


@dataclass(kw_only=True)
class _Layer:
    queries: list[Tensor]
    """(B, H, tokens of the step, D) each."""
    attention: LayerAttention
    """Of the first step; what does not change from step to step is taken from there."""
    key_BKTD: Tensor
    mask: Any


@dataclass(kw_only=True)
class Generated:
    """What was kept of the latest generation."""

    budget: int = GENERATION_BYTES
    """Bytes of queries and keys."""
    ids: list[Tensor] = field(default_factory=list)
    """(B, tokens of the step) each."""
    layers: dict[int, _Layer] = field(default_factory=dict)
    kept: int = 0
    lost: str | None = None
    """Why nothing is kept any more; one of `LOST`, or None."""

    def start_or_go_on(self, ids_BN: Int[Tensor, "B N"]) -> None:
        """Tokens that the model takes in: a whole prompt, with which a generation starts, or one more each."""
        if ids_BN.shape[1] > 1 or len(ids_BN) != len(self.ids[0] if self.ids else ids_BN):
            self.ids, self.layers, self.kept = [], {}, 0
        self.ids.append(ids_BN)

    def keep(self, module: Any, model: Any, query: Tensor, key: Tensor, mask: Any, kwargs: Mapping[str, Any]) -> None:
        """One layer's part of a step."""
        steps, length = query.shape[2], key.shape[2]
        layer = self.layers.get(module.layer_idx)
        self.kept += query.nbytes + key.nbytes * steps // length
        if length != (steps if layer is None else layer.key_BKTD.shape[2] + steps):
            self.drop("short_cache")
        elif self.kept > self.budget:
            self.drop("over_budget")
        elif layer is None:
            attention = layer_attention(model, module, query, key, mask, kwargs)
            self.layers[module.layer_idx] = _Layer(queries=[query], attention=attention, key_BKTD=key, mask=mask)
        else:
            layer.queries.append(query)
            layer.key_BKTD, layer.mask = key, mask

    def drop(self, reason: str | None = None) -> None:
        """Keep nothing; and where there is a reason, nothing more."""
        self.lost = self.lost or reason
        self.ids, self.layers = [], {}

    def attention(self, sampled: Sampled) -> dict[int, LayerAttention] | None:
        """The layers over these sequences, as far as they were taken in; None where they cannot be had."""
        if not self.ids or not self.layers:
            self.drop("other_tokens")
            return None
        ids_BT = torch.cat(self.ids, 1)
        width = min(ids_BT.shape[1], sampled.width)
        sampled_BT = torch.cat([sampled.prompt_ids_BP, sampled.response_ids_BR], 1)[:, :width]
        mask_BT = torch.cat([sampled.prompt_mask_BP, sampled.response_mask_BR], 1)[:, :width]
        same = ids_BT.shape[0] == len(sampled) and width >= sampled.width - 1
        if not same or not bool(((ids_BT[:, :width] == sampled_BT) | (mask_BT == 0)).all()):
            self.drop("other_tokens")
            return None
        # Tokens behind a response's end were taken in, and are padding only to us.
        visible_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        visible_BT[:, : sampled.prompt_ids_BP.shape[1]] = sampled.prompt_mask_BP.bool()
        if not all(_saw(layer, visible_BT) for layer in self.layers.values()):
            self.drop("hidden_tokens")
            return None
        segments_BT = None if bool(mask_BT.all()) else mask_BT.long()
        return {index: _joined(layer, width, segments_BT) for index, layer in self.layers.items()}


def _saw(layer: _Layer, visible_BT: Tensor) -> bool:
    """Whether the last step could see what is visible, and nothing else."""
    if layer.key_BKTD.shape[2] != visible_BT.shape[1] or layer.attention.position_bias is not None:
        return False
    if layer.mask is None:
        return bool(visible_BT.all())
    if not isinstance(layer.mask, Tensor) or (layer.mask.ndim == 4 and layer.mask.shape[1] > 1):
        return False
    # As (B, 1, queries, T), true or 0 where a token is seen; as (B, T), true or 1.
    seen_BT = layer.mask
    if layer.mask.ndim == 4:
        last_BT = layer.mask[:, 0, -1]
        seen_BT = last_BT if last_BT.dtype == torch.bool else last_BT > torch.finfo(last_BT.dtype).min / 2
    return seen_BT.shape[-1] == visible_BT.shape[1] and bool((seen_BT.bool() == visible_BT.to(seen_BT.device)).all())


def _joined(layer: _Layer, width: int, segments_BT: Tensor | None) -> LayerAttention:
    layer.queries = [torch.cat(layer.queries, 2)]  # the steps' own are let go of, a layer at a time
    return replace(
        layer.attention,
        query_BHTD=layer.queries[0][:, :, :width],
        key_BKTD=layer.key_BKTD[:, :, :width],
        mask=None,
        segments_BT=None if segments_BT is None else segments_BT.to(layer.key_BKTD.device),
    )


@contextlib.contextmanager
def hear_generation(model: Any, layers: Sequence[int], budget: int) -> Iterator[Generated]:
    """Keep what the chosen layers attend with while the model generates inside the block; it draws what it would."""
    heard = Generated(budget=budget)

    def take_in(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs and heard.lost is None:
            heard.start_or_go_on(inputs[0])

    def call(original: Callable[..., Any], module: Any, query: Tensor, key: Tensor, *rest: Any, **kwargs: Any) -> Any:
        if heard.lost is None and module.layer_idx in layers:
            heard.keep(module, model, query, key, rest[1], kwargs)
        return original(module, query, key, *rest, **kwargs)

    hook = model.get_input_embeddings().register_forward_pre_hook(take_in)
    try:
        with intercept_attention(model, call):
            yield heard
    finally:
        hook.remove()


class GenerationReader:
    """Reads what chosen layers attend with off generations, as long as that is what they attend with in a forward.

    Args:
        model: What generates.
        readers: Whose layers are kept.
        budget: Bytes of queries and keys that may be kept of one generation.
    """

    def __init__(self, model: Any, readers: Sequence[AttentionReader], budget: int = GENERATION_BYTES) -> None:
        self._model = model
        self._readers = readers
        self._budget = budget
        self.lost: str | None = None
        """Why the latest generation could not be read; one of `LOST`, or None."""
        self._true: bool | None = None  # not known before the first generation

    @contextlib.contextmanager
    def hearing(self) -> Iterator[Generated | None]:
        """Keep what the model generates inside the block with; None where that would be of no use."""
        if not self._readers or self._true is False:
            yield None
            return
        layers = sorted({layer for reader in self._readers for layer in reader.layers})
        with hear_generation(self._model, layers, self._budget) as heard:
            yield heard

    def attention(self, sampled: Sampled, generated: Generated) -> dict[int, LayerAttention] | None:
        """The layers over these sequences, as far as they were taken in; None where they cannot be had or trusted."""
        attention = generated.attention(sampled)
        self.lost = generated.lost
        generated.drop()
        if attention is None:
            return None
        if self._true is None:
            self._true = not drops(self._model) and all(
                _generates_truly(reader, sampled, attention) for reader in self._readers
            )
        if not self._true:
            self.lost = "differs"  # and stays so: such a model is heard no more
            return None
        return attention


def fill(waiting: Sequence[Pending], attention: Mapping[int, LayerAttention], *, rows_at_once: int) -> None:
    """Score the sequences that wait, a few at a time, where every token that they need was taken in."""
    for pending in waiting:
        layers = pending.choose(attention)
        missing = pending.missing
        enough = pending.sampled.prompt_ids_BP.shape[1] + pending.ends_B[missing] <= layers[0].query_BHTD.shape[2]
        for numbers in missing[enough].split(rows_at_once):
            if len(numbers):
                few = pending.few(numbers)
                pending.take(few, few.part(layers))


def _generates_truly(reader: AttentionReader, sampled: Sampled, attention: Mapping[int, LayerAttention]) -> bool:
    """Whether a model attends while it generates as it does in a forward, seen on the first and the last sequence."""
    width = next(iter(attention.values())).query_BHTD.shape[2]
    ends = torch.tensor([0, len(sampled) - 1], device=sampled.device).unique()
    few = sampled.few(ends, width - sampled.prompt_ids_BP.shape[1])
    return agree(few.attend(reader, stop_early=True), few.part(reader.choose(attention)), few)
