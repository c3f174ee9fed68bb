"""Where a layer's attention goes: its output projection, and the sum with what the layer was given. Found, and proved.

A forward over a few tokens shows every module's input and output. With `o` the heads' output, side by side, and `x`
what enters the layer,

1. the *projection* W_O is the module within the attention block that takes `o` and whose output is the block's. Its
   matrix is read off by handing it the unit vectors, so that adapters, quantised and transposed weights need no
   rule of their own; that `o W_O^T + b` is the block's output is then checked.
2. the *update* `a` is the block's output, or what a norm behind it makes of it, which must be `r_k (w * a)` with a
   number a token and a weight a channel (RMSNorm). The *sum* `alpha x + beta a` is looked for among the inputs of
   the layer's other modules, and, where attention and MLP run side by side, in the layer's output less the MLP's.

A layer where either is not found is refused by name, instead of being read wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import CaptureError
from flowtracer.model.capture import intercept_attention
from flowtracer.model.forward import accepted, device_of, evaluating
from flowtracer.shapes import Float

_PROBE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The modules of one layer that its attention goes through."""

    projection: Any
    """W_O with its bias."""
    width: int
    """Numbers that it takes: heads times their width."""
    block: Any = None
    """The decoder layer, whose input is the residual; None where nobody asked for it."""
    update: Any = None
    """Whose output is added to the residual: the attention module, or a norm behind it."""
    norm: Any = None
    """That norm; None where there is none."""
    residual_scale: float = 1.0
    update_scale: float = 1.0

    @torch.no_grad()
    def matrix(self, heads: int) -> Float[Tensor, "H D M"]:
        """W_O by head, times the norm's weights where there is one, as the weights are now; float32."""
        matrix_FM = _matrix(self.projection, self.width)
        if self.norm is not None:
            matrix_FM = matrix_FM * _channel_weights(self.norm, matrix_FM)
        return matrix_FM.reshape(heads, -1, matrix_FM.shape[1])

    @torch.no_grad()
    def token_scales(self, block_BTM: Tensor, update_BTM: Tensor) -> Float[Tensor, "B T 1"]:
        """The number by which the norm multiplied each token, from the block's output and the update."""
        weighted_BTM = block_BTM.float() * _channel_weights(self.norm, block_BTM)
        return _token_scales(weighted_BTM, update_BTM.float())


def find_anatomy(model: Any, layers: Sequence[int], *, residual: bool, capacity: str) -> dict[int, Anatomy]:
    """The anatomy of the chosen layers.

    Args:
        model: A transformers model whose attention can be read.
        layers: Decoder layers.
        residual: Look for the sum with the residual as well.
        capacity: What it is for, which errors name.

    Raises:
        CaptureError: A layer is built in a way that is not understood.
    """
    parents = {id(child): module for module in model.modules() for child in module.children()}
    # A trainer's dropout and mixed precision are not for what is looked at here.
    with evaluating(model), torch.autocast(device_of(model).type, enabled=False):
        seen = _probe(model, layers, parents)
        return {layer: _find(model, layer, parents, seen, residual=residual, capacity=capacity) for layer in layers}


def _find(model: Any, layer: int, parents: Mapping[int, Any], seen: _Seen, *, residual: bool, capacity: str) -> Anatomy:
    module, heads_output = seen.attention[layer]
    block, block_output = parents.get(id(module)), seen.outputs.get(id(module))
    projection = None if block_output is None else _find_projection(module, heads_output, block_output, seen)
    if projection is None:
        raise _refusal(model, layer, capacity, "whose heads are joined by one linear projection")
    if not residual:
        return Anatomy(projection=projection, width=heads_output.shape[1])
    total = None if block is None else _find_sum(block, module, seen)
    if total is None:
        raise _refusal(model, layer, capacity, "which adds its attention to what it was given")
    return Anatomy(projection=projection, width=heads_output.shape[1], block=block, **total)


def _refusal(model: Any, layer: int, capacity: str, what: str) -> CaptureError:
    return CaptureError(
        f"expected a layer {what}, as capacity {capacity!r} needs it, got layer {layer} of {type(model).__name__}, "
        "which is built otherwise; capacity 'attention' over graph 'tokens' reads any layer"
    )


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What a forward over a few tokens showed, in float32, tokens by channels."""

    inputs: dict[int, Tensor]
    outputs: dict[int, Tensor]
    order: list[Any]
    """Modules as they finished."""
    attention: dict[int, tuple[Any, Tensor]]
    """The module that attends in each layer, and its heads' output side by side."""
    tolerance: float
    rounding: float


def _probe(model: Any, layers: Sequence[int], parents: Mapping[int, Any]) -> _Seen:
    rounding = torch.finfo(next(model.parameters()).dtype).eps
    seen = _Seen(
        inputs={},
        outputs={},
        order=[],
        attention={},
        tolerance=5e-2 if rounding > 1e-6 else 1e-3,  # as for the attention itself
        rounding=2 * rounding,  # a sum is rounded once, or twice where the MLP's part is added as well
    )
    ids_1T = torch.arange(_PROBE_TOKENS, device=device_of(model))[None] % model.get_input_embeddings().num_embeddings

    def call(original: Callable[..., Any], module: Any, *rest: Any, **kwargs: Any) -> Any:
        output = original(module, *rest, **kwargs)
        if module.layer_idx in layers:
            seen.attention[module.layer_idx] = module, output[0].detach().reshape(_PROBE_TOKENS, -1).float()
        return output

    def finished(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given, gave = _by_token((*args, *kwargs.values())), _by_token((output,))
        if given is not None and gave is not None:
            seen.inputs[id(module)], seen.outputs[id(module)] = given, gave
            seen.order.append(module)

    watched = _around_attention(model, layers, parents)
    hooks = [module.register_forward_hook(finished, with_kwargs=True) for module in watched]
    try:
        with torch.no_grad(), intercept_attention(model, call):
            model(input_ids=ids_1T, **accepted(model.forward, {"use_cache": False, "logits_to_keep": 1}))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _around_attention(model: Any, layers: Sequence[int], parents: Mapping[int, Any]) -> list[Any]:
    """Modules that belong to a layer, what is in them, the decoder layer around them and its parts; not what is in
    those, which may be a large MLP's.
    """
    around: dict[int, Any] = {}
    for module in model.modules():
        if getattr(module, "layer_idx", None) in layers and id(module) in parents:
            block = parents[id(module)]
            around |= {id(each): each for each in (block, *block.children(), *module.modules())}
    return list(around.values())


def first_tensor(values: Sequence[Any]) -> Tensor | None:
    """The first tensor of floating point numbers among arguments, or within the first of several outputs."""
    for value in values:
        inner = value[0] if isinstance(value, tuple) and value else value
        if isinstance(inner, Tensor) and inner.is_floating_point():
            return inner
    return None


def _by_token(values: Sequence[Any]) -> Tensor | None:
    tensor = first_tensor(values)
    if tensor is None or tensor.ndim not in (2, 3) or tensor.shape[-2] != _PROBE_TOKENS:
        return None
    return tensor.detach().reshape(_PROBE_TOKENS, -1).float()


def _find_projection(module: Any, heads_output: Tensor, block_output: Tensor, seen: _Seen) -> Any:
    """The outermost module within the attention block from the heads' output to the block's; None where none is."""
    for inner in module.modules():
        given, gave = seen.inputs.get(id(inner)), seen.outputs.get(id(inner))
        if inner is module or given is None or gave is None:
            continue
        if _same(given, heads_output) and _same(gave, block_output):
            matrix_FM = _matrix(inner, heads_output.shape[1])
            bias_M = _apply(inner, torch.zeros(1, len(matrix_FM)))
            close = _close(block_output, heads_output @ matrix_FM + bias_M, block_output, seen)
            return inner if close else None
    return None


def _find_sum(block: Any, module: Any, seen: _Seen) -> dict[str, Any] | None:
    """Where residual and update are added, as fields of `Anatomy`; None where no sum is what it ought to be."""
    entered = seen.inputs.get(id(block))
    if entered is None:
        return None
    others = [child for child in seen.order if child is not module and _is_child(child, block)]
    sums = [seen.inputs[id(child)] for child in others]
    alike = [seen.outputs[id(child)] for child in others if seen.outputs[id(child)].shape == entered.shape]
    sums += [seen.outputs[id(block)] - output for output in alike]
    for update, norm in _updates(module, others, seen):
        for total in sums:
            scales = None if total.shape != entered.shape else _scales(total, entered, update, seen)
            if scales is not None:
                update_module = module if norm is None else norm
                return {"update": update_module, "norm": norm, "residual_scale": scales[0], "update_scale": scales[1]}
    return None


def _is_child(module: Any, block: Any) -> bool:
    return any(module is child for child in block.children())


def _updates(module: Any, others: Sequence[Any], seen: _Seen) -> Iterator[tuple[Tensor, Any]]:
    """What a norm behind it makes of the attention block's output, then that output itself."""
    output = seen.outputs[id(module)]
    for norm in others:
        if not _same(seen.inputs[id(norm)], output) or next(norm.parameters(), None) is None:
            continue
        weighted = output * _channel_weights(norm, output)
        normed = seen.outputs[id(norm)]
        if _close(normed, weighted * _token_scales(weighted, normed), normed, seen):
            yield normed, norm
    yield output, None


def _scales(total: Tensor, entered: Tensor, update: Tensor, seen: _Seen) -> tuple[float, float] | None:
    """`alpha` and `beta` with `total = alpha entered + beta update`; None where there are none."""
    if _close(total, entered + update, update, seen):
        return 1.0, 1.0
    both_N2 = torch.stack([entered.flatten(), update.flatten()], 1).double()
    alpha, beta = (float(x) for x in torch.linalg.lstsq(both_N2, total.flatten()[:, None].double()).solution[:, 0])
    if min(abs(alpha), abs(beta)) < 1e-3:  # a sum of one part is none
        return None
    return (alpha, beta) if _close(total, alpha * entered + beta * update, beta * update, seen) else None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _close(got: Tensor, expected: Tensor, unit: Tensor, seen: _Seen) -> bool:
    """Equal within a part of `unit`'s size, and within what rounding leaves of the largest numbers."""
    allowed = seen.tolerance * unit.square().mean().sqrt() + seen.rounding * got.abs()
    return bool(((got - expected).abs() <= allowed).all())


def _matrix(projection: Any, width: int) -> Float[Tensor, "F M"]:
    """What a linear module makes of the unit vectors, without its bias."""
    return _apply(projection, torch.eye(width)) - _apply(projection, torch.zeros(1, width))


@torch.no_grad()
def _apply(module: Any, given_NF: Float[Tensor, "N F"]) -> Float[Tensor, "N M"]:
    weight = next(module.parameters())
    dtype = weight.dtype if weight.is_floating_point() else torch.float32  # quantised weights take any
    return module(given_NF.to(weight.device, dtype)[None])[0].float()


def _channel_weights(norm: Any, like: Tensor) -> Float[Tensor, " M"]:
    """What a norm multiplies each channel by: a vector of ones has a root mean square of 1."""
    return _apply(norm, torch.ones(1, like.shape[-1]))[0]


def _token_scales(weighted: Float[Tensor, "... M"], normed: Float[Tensor, "... M"]) -> Float[Tensor, "... 1"]:
    """The number by which a norm multiplied each token; 1 where there was nothing to multiply, as in padding."""
    scales = (weighted * normed).sum(-1, keepdim=True) / weighted.square().sum(-1, keepdim=True).clamp_min(1e-30)
    return scales.masked_fill(scales == 0, 1.0)
