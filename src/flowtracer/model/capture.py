"""Attention out of a running transformers model, on whatever backend it runs, its logits unchanged to the bit.

1. For the duration of a forward, the model's own attention function (sdpa, eager, flash, flex) is wrapped. The wrapper
   keeps references to the queries and keys of the chosen layers, with everything that shapes their softmax (scale,
   mask, window, soft cap, sinks, position bias), and calls the original with its arguments untouched.
2. Where only attention is wanted, the forward ends inside the last chosen layer: later layers and the LM head never
   run.

The registry that transformers looks attention functions up in is global to the process. A lock keeps captures of
several threads apart, and modules of other models pass through the wrapper untouched.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.values import LayerValues
from flowtracer.errors import CaptureError, InputError
from flowtracer.model.forward import accepted, device_of, evaluating
from flowtracer.shapes import Int

Heads = Mapping[int, Sequence[int]]
"""Chosen heads of each chosen layer."""


class LastLayerReached(Exception):
    """Unwinds a forward that has given all that was wanted."""


Observer = Callable[[LayerAttention, Tensor, Tensor], None]
"""Called with a layer's attention, its values (B, K, T, D) and its output (B, T, H, D)."""

_REGISTRY_LOCK = threading.RLock()


@contextlib.contextmanager
def record_attention(
    model: Any,
    layers: Sequence[int] | None,
    *,
    stop_early: bool = False,
    observer: Observer | None = None,
    values: bool = False,
) -> Iterator[dict[int, LayerAttention]]:
    """Record what the chosen layers attend with, in every forward of `model` inside the block.

    Args:
        model: A transformers model, wrapped or not.
        layers: Indices of decoder layers; None for all.
        stop_early: End the forward, and silently leave the block, once the last chosen layer has been read.
        observer: Sees every recorded layer's output too.
        values: Record the layers' values as well.

    Yields:
        The recorded layers by index, filled while the model runs. Steps of generation with a cache are not recorded.

    Raises:
        CaptureError: The model's attention is not causal.
    """
    recorded: dict[int, LayerAttention] = {}
    last = max(layers) if layers else None

    def call(original: Callable[..., Any], module: Any, query: Tensor, key: Tensor, *rest: Any, **kwargs: Any) -> Any:
        layer = module.layer_idx
        wanted = layers is None or layer in layers
        # Of generation only the first step, over the whole prompt, is a forward to read.
        if not wanted or not query.shape[2] == key.shape[2] > 1:
            return original(module, query, key, *rest, **kwargs)
        value, mask = rest
        attention = layer_attention(model, module, query, key, mask, kwargs)
        if values:
            attention = replace(attention, values=LayerValues(value_BKTD=value.detach()))
        recorded[layer] = attention
        if stop_early and layer == last:
            raise LastLayerReached
        output = original(module, query, key, value, mask, **kwargs)
        if observer is not None:
            observer(attention, value.detach(), output[0].detach())
        return output

    with intercept_attention(model, call), contextlib.suppress(LastLayerReached):
        yield recorded


@contextlib.contextmanager
def intercept_attention(model: Any, call: Callable[..., Any]) -> Iterator[None]:
    """Hand every attention call of the model's decoder layers inside the block to `call`.

    It gets the original function, then what that takes: module, query, key, value, mask and further options.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    # A vision tower attends through the same interface, and may count layers too; it is no part of the decoder.
    ours = {id(module) for module in model.get_decoder().modules()}
    backend = _attention_backend(model)

    def wrapper(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        original = inner if inner is not None else _eager_function(module)
        if id(module) not in ours or getattr(module, "layer_idx", None) is None:
            return original(module, query, key, value, attention_mask, **kwargs)
        return call(original, module, query, key, value, attention_mask, **kwargs)

    with _REGISTRY_LOCK:
        inner = ALL_ATTENTION_FUNCTIONS.get(backend)
        overridden = backend in ALL_ATTENTION_FUNCTIONS._local_mapping
        ALL_ATTENTION_FUNCTIONS[backend] = wrapper
        try:
            yield
        finally:
            if overridden:
                ALL_ATTENTION_FUNCTIONS[backend] = inner
            else:
                del ALL_ATTENTION_FUNCTIONS[backend]


class AttentionReader:
    """Reads the head-mean attention of chosen layers of one model.

    At construction a forward over a few tokens finds which layers attend through the interface, and proves for each
    that the weights recomputed here, times the layer's values, are the layer's own output.

    Args:
        model: A causal transformers model.
        layers: Decoder layers to average over; None for the middle third, the paper's choice.
        heads: Heads of those layers: a list that holds for every layer, or one list per layer; None for all.

    Raises:
        CaptureError: No layer attends through the interface, attention is not causal, or cannot be reproduced.
        InputError: A layer or head that the model does not have.
    """

    def __init__(
        self, model: Any, layers: Sequence[int] | None = None, heads: Sequence[int] | Heads | None = None
    ) -> None:
        self._model = model
        available = attention_layers(model)
        self.layers = tuple(sorted(set(layers))) if layers is not None else middle_third(available)
        if not self.layers or not set(self.layers) <= set(available):
            raise InputError(f"expected layers among {available}, got {list(self.layers)}")
        if heads is not None and not isinstance(heads, Mapping):
            heads = dict.fromkeys(self.layers, heads)
        if heads is not None and not set(self.layers) <= set(heads):
            raise InputError(f"expected heads for each of the layers {list(self.layers)}, got {sorted(heads)}")
        self.heads = None if heads is None else {layer: tuple(heads[layer]) for layer in self.layers}

    def read(
        self,
        input_ids_BT: Int[Tensor, "B T"],
        attention_mask_BT: Tensor | None = None,
        position_ids_BT: Tensor | None = None,
        *,
        images: Mapping[str, Tensor] | None = None,
        stop_early: bool = True,
    ) -> list[LayerAttention]:
        """Run the model up to the last chosen layer and return what the chosen layers attend with.

        `images` is what else the forward takes: what a processor made of images. `stop_early=False` runs the whole
        trunk: a sharded model must not leave a forward half done.

        Raises:
            CaptureError: The tokens of an image attend to later ones.
        """
        inputs = forward_inputs(input_ids_BT, attention_mask_BT, position_ids_BT, images)
        with record_attention(self._model, self.layers, stop_early=stop_early) as recorded:
            run_model(self._model, inputs)
        if images:
            refuse_looking_ahead(list(recorded.values()))
        return self.choose(recorded)

    def choose(self, recorded: Mapping[int, LayerAttention]) -> list[LayerAttention]:
        """The chosen layers, cut down to the chosen heads."""
        missing = [layer for layer in self.layers if layer not in recorded]
        if missing:
            raise CaptureError(
                f"expected attention of layers {list(self.layers)}, got none of {missing}: a sequence needs at least "
                "two tokens, and the forward must not use a cache"
            )
        if self.heads is None:
            return [recorded[layer] for layer in self.layers]
        return [recorded[layer].with_heads(self.heads[layer]) for layer in self.layers]


def refuse_looking_ahead(layers: Sequence[LayerAttention]) -> None:
    """Raise where the tokens of an image attend to later ones, as no token of text does in the same model.

    Raises:
        CaptureError: Flow needs a graph that runs one way.
    """
    masks = {id(layer.mask): layer for layer in layers}  # most layers share one
    ahead = next((layer for layer in masks.values() if layer.looks_ahead()), None)
    if ahead is not None:
        raise CaptureError(
            f"expected causal attention, got layer {ahead.layer} where tokens of an image attend to later ones, as in "
            "Gemma 3: flow and attention can be read only where every token sees earlier ones alone; use a credit that "
            "reads neither (entropy, gradient, visual), or a model whose image tokens attend one way"
        )


def middle_third(layers: Sequence[int]) -> tuple[int, ...]:
    """Layers `floor(n/3) .. floor(2n/3)-1` of the `n` that attend; at least one."""
    n = len(layers)
    return tuple(layers[n // 3 : max(2 * n // 3, n // 3 + 1)])


def attention_layers(model: Any, *, probe_tokens: int = 16) -> list[int]:
    """Decoder layers whose attention can be read, found and proved by a forward over a few tokens."""
    parts = getattr(model, "tp_size", None) or 1
    if parts > 1:
        # Each process would prove its own heads, and average over those alone.
        raise CaptureError(
            f"expected every head of a layer in one process, got tensor parallelism over {parts}: load the model "
            "without tp_plan, whole, with device_map, or sharded by FSDP2"
        )
    found: list[int] = []

    def check(attention: LayerAttention, value_BKTD: Tensor, output_BTHD: Tensor) -> None:
        _prove(attention, value_BKTD, output_BTHD)
        found.append(attention.layer)

    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.arange(probe_tokens, device=device_of(model))[None] % vocabulary
    with record_attention(model, None, observer=check):
        run_model(model, {"input_ids": ids})
    if not found:
        raise CaptureError(
            f"expected {type(model).__name__} to attend through transformers' attention interface, got no call: models "
            "with an attention of their own (falcon, bloom, mamba) cannot be traced; docs/capture.md lists which can"
        )
    return sorted(set(found))


def _prove(attention: LayerAttention, value_BKTD: Tensor, output_BTHD: Tensor) -> None:
    """Raise unless the recomputed weights are causal and give the layer's own output."""
    length, heads = attention.query_BHTD.shape[2], attention.query_BHTD.shape[1]
    weights_BHTT = attention.weights(0, length)
    if bool((weights_BHTT.triu(1) > 0).any()):
        raise CaptureError(
            f"expected causal attention, got layer {attention.layer} that attends to later tokens: only decoders that "
            "read from left to right can be traced"
        )
    if not bool(output_BTHD.isfinite().all()):
        raise CaptureError(
            f"expected finite attention, got NaN or infinity in layer {attention.layer}; check the model's weights and "
            "its dtype"
        )
    values_BHTD = value_BKTD.repeat_interleave(heads // value_BKTD.shape[1], 1).float()
    expected_BTHD = (weights_BHTT @ values_BHTD).transpose(1, 2)
    got_BTHD = output_BTHD.reshape(expected_BTHD.shape).float()
    scale = values_BHTD.abs().max().clamp_min(1e-6)
    # Half precision rounds weights and values on its own way through the backend.
    tolerance = 1e-3 if output_BTHD.dtype == torch.float32 else 5e-2
    if not bool(((got_BTHD - expected_BTHD).abs() <= tolerance * scale).all()):
        raise CaptureError(
            f"expected the attention of layer {attention.layer} to follow from its queries and keys, got another "
            "output: its attention function applies something that FlowTracer does not know; please report the model"
        )


def forward_inputs(
    input_ids_BT: Int[Tensor, "B T"],
    attention_mask_BT: Tensor | None,
    position_ids_BT: Tensor | None,
    images: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """What a model's forward takes, by name, of that which is given."""
    named = {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT, "position_ids": position_ids_BT}
    return {**(images or {}), **{name: value for name, value in named.items() if value is not None}}


def run_model(model: Any, inputs: Mapping[str, Tensor]) -> None:
    """One forward without gradients, dropout, cache or more of the LM head than one position."""
    with evaluating(model), torch.no_grad():
        model(**inputs, **accepted(model.forward, {"use_cache": False, "logits_to_keep": 1}))


def _attention_backend(model: Any) -> str:
    """The name that the decoder looks its attention function up by."""
    return model.config.get_text_config(decoder=True)._attn_implementation or "eager"


def _eager_function(module: Any) -> Callable[..., Any]:
    """A model's own eager attention stands beside its attention class and in no registry."""
    function = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if function is None:
        raise CaptureError(
            f"expected an eager_attention_forward beside {type(module).__name__}, got none: "
            'load the model with attn_implementation="sdpa"'
        )
    return function


def layer_attention(
    model: Any, module: Any, query: Tensor, key: Tensor, mask: Any, kwargs: Mapping[str, Any]
) -> LayerAttention:
    """Everything that shapes the softmax of this call. Tensors are referred to, not copied."""
    backend = _attention_backend(model)
    scaling = kwargs.get("scaling")
    sinks, bias = kwargs.get("s_aux"), kwargs.get("position_bias")
    common: dict[str, Any] = {
        "layer": module.layer_idx,
        "query_BHTD": query.detach(),
        "key_BKTD": key.detach(),
        "scale": query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        "softcap": kwargs.get("softcap"),
        "sinks_H": None if sinks is None else sinks.detach(),
        "position_bias": None if bias is None else bias.detach(),
    }
    if hasattr(mask, "mask_mod"):  # flex attention's BlockMask
        return LayerAttention(**common, mask=mask.mask_mod)
    if isinstance(mask, Tensor) and mask.ndim == 4:
        return LayerAttention(**common, mask=mask[..., : key.shape[2]])
    is_causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal or backend == "eager":  # eager attention without a mask hides nothing
        raise CaptureError(
            f"expected causal attention, got layer {module.layer_idx} without a mask: only decoders that read from "
            "left to right can be traced"
        )
    if backend == "sdpa":
        return LayerAttention(**common, mask=None)
    return LayerAttention(
        **common,
        mask=None,
        window=kwargs.get("sliding_window"),
        segments_BT=_segments(mask, kwargs, query.shape[0], query.shape[2]),
    )


def _segments(
    padding_BT: Tensor | None, kwargs: Mapping[str, Any], batch: int, length: int
) -> Int[Tensor, "B T"] | None:
    """Flash attention gets no T x T mask: padding as (B, T), packing as cumulative lengths or restarting positions."""
    if padding_BT is not None:
        return padding_BT.long()
    starts = kwargs.get("cu_seq_lens_q")
    if starts is not None:
        marks = torch.zeros(length + 1, dtype=torch.long, device=starts.device)
        marks[starts.long()] = 1
        return marks[:length].cumsum(0).expand(batch, -1)
    positions = kwargs.get("position_ids")
    if positions is None:
        return None
    return (positions == 0).long().cumsum(-1).clamp_min(1).expand(batch, -1)
