"""What attention moves, out of a running model: values, projections, residuals, and gradients at heads' outputs.

1. Values come with queries and keys, from the same call.
2. The residual is what enters a layer; a norm behind the attention divides each token of the update by a number, and so
   the residual is divided by it instead (`anatomy.py`). Nothing after the last chosen layer's attention is run.
3. Gradients take one forward over the whole model with a graph from the first chosen layer's attention on, and one
   backward pass of log p(answer) to the outputs of all heads: not to any parameter, and no map of attention is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flowtracer.attention.capacity import asked, there
from flowtracer.attention.layer import LayerAttention
from flowtracer.errors import InputError
from flowtracer.model.anatomy import Anatomy, find_anatomy, first_tensor
from flowtracer.model.capture import (
    AttentionReader,
    Heads,
    LastLayerReached,
    attention_layers,
    forward_inputs,
    intercept_attention,
    record_attention,
    refuse_looking_ahead,
    run_model,
)
from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedTokens:
    """Tokens whose log-probability gradients are taken of."""

    predicting_BT: Bool[Tensor, "B T"]
    """Positions that predict them, one before each."""
    token_ids_N: Int[Tensor, " N"]
    """What stands behind these positions, row by row."""


class ContributionReader:
    """Reads chosen layers' attention of one model together with what a capacity asks for beside it.

    At construction a forward over a few tokens proves the layers' anatomy.

    Args:
        attention: Says which layers and heads.
        model: A causal transformers model.
        capacity: A name in `flowtracer.attention.capacity.CAPACITIES`.
        graph: "tokens" or "layered".

    Raises:
        CaptureError: A layer is built in a way that this capacity cannot be read off.
    """

    def __init__(self, attention: AttentionReader, model: Any, capacity: str, graph: str) -> None:
        self._attention = attention
        self._model = model
        self._asked = asked(capacity, graph)
        self.layers = attention.layers
        self.heads = attention.heads
        self._anatomy: dict[int, Anatomy] = {}
        if self._asked & {"projection", "residual"}:
            residual = "residual" in self._asked
            self._anatomy = find_anatomy(model, self.layers, residual=residual, capacity=capacity)

    @cached_property
    def _logits(self) -> LogitReader:
        return LogitReader(self._model)

    def read(
        self,
        input_ids_BT: Int[Tensor, "B T"],
        attention_mask_BT: Tensor | None = None,
        position_ids_BT: Tensor | None = None,
        *,
        images: Mapping[str, Tensor] | None = None,
        stop_early: bool = True,
        predicted: PredictedTokens | None = None,
    ) -> list[LayerAttention]:
        """Run the model, and return what the chosen layers attend with and what they move; see `AttentionReader.read`.

        Args:
            input_ids_BT: Tokens.
            attention_mask_BT: 1 on tokens, 0 on padding.
            position_ids_BT: Where they restart, sequences were packed.
            images: What else the forward takes: what a processor made of images.
            stop_early: End in the last chosen layer where no gradient is asked for.
            predicted: The answer, where gradients are asked for.

        Raises:
            CaptureError: The tokens of an image attend to later ones.
            InputError: Gradients are asked for, and no answer was given.
        """
        inputs = forward_inputs(input_ids_BT, attention_mask_BT, position_ids_BT, images)
        streams: dict[int, _Stream] = {}
        if "gradient" in self._asked:
            if predicted is None:
                raise InputError("expected the answer's tokens, whose gradient is asked for, got none")
            recorded, streams, gradients = self._with_gradients(inputs, predicted)
        else:
            gradients = {}
            with (
                record_attention(self._model, self.layers, stop_early=self._ends(stop_early), values=True) as recorded,
                self._streams(stop_early) as streams,
            ):
                run_model(self._model, inputs)
        if images:
            refuse_looking_ahead(list(recorded.values()))
        # Projections are applied anew: a trainer's dropout and mixed precision are not for them.
        with evaluating(self._model), torch.autocast(input_ids_BT.device.type, enabled=False):
            whole = {
                layer: self._complete(recorded[layer], streams.get(layer), gradients.get(layer)) for layer in recorded
            }
        return self._attention.choose(whole)

    def _ends(self, stop_early: bool) -> bool:
        """Whether the forward may end in the last layer's attention: not where the norm behind it is needed."""
        last = self._anatomy.get(self.layers[-1])
        return stop_early and (last is None or last.norm is None)

    @contextlib.contextmanager
    def _streams(self, stop_early: bool) -> Iterator[dict[int, _Stream]]:
        """Keep residuals, and what the norms behind attention do, of the forward inside the block."""
        streams: dict[int, _Stream] = {}
        hooks = []
        for layer, anatomy in self._anatomy.items() if "residual" in self._asked else ():
            stream = streams[layer] = _Stream(anatomy)
            hooks.append(anatomy.block.register_forward_pre_hook(stream.enter, with_kwargs=True))
            if anatomy.norm is not None:
                last = layer == self.layers[-1]
                hooks.append(anatomy.norm.register_forward_hook(stream.norm(stop=stop_early and last)))
        try:
            yield streams
        finally:
            for hook in hooks:
                hook.remove()

    def _with_gradients(
        self, inputs: Mapping[str, Tensor], predicted: PredictedTokens
    ) -> tuple[dict[int, LayerAttention], dict[int, _Stream], dict[int, tuple[Tensor, Tensor | None]]]:
        """A whole forward and a backward pass to heads' outputs, and to updates where those are needed."""
        logits = self._logits  # which runs the model where it is new
        outputs: dict[int, Tensor] = {}
        updates: dict[int, Tensor] = {}

        def call(original: Callable[..., Any], module: Any, *rest: Any, **kwargs: Any) -> Any:
            output, *others = original(module, *rest, **kwargs)
            if module.layer_idx in self.layers:
                if module.layer_idx == self.layers[0]:  # what came before needs no graph
                    output = output.detach().requires_grad_()
                outputs[module.layer_idx] = output
            return output, *others

        def keep(layer: int) -> Callable[..., None]:
            def kept(_module: Any, _inputs: Any, output: Any) -> None:
                updates[layer] = output[0] if isinstance(output, tuple) else output

            return kept

        wanted = self._anatomy if "residual" in self._asked else {}
        hooks = [anatomy.update.register_forward_hook(keep(layer)) for layer, anatomy in wanted.items()]
        try:
            with (
                record_attention(self._model, self.layers, values=True) as recorded,
                intercept_attention(self._model, call),
                self._streams(stop_early=False) as streams,
                evaluating(self._model),
                torch.enable_grad(),
            ):
                hidden_BTD = logits.hidden(inputs)
                chosen_ND = hidden_BTD[predicted.predicting_BT.to(hidden_BTD.device)]
                log_prob = logits.log_probs(chosen_ND, predicted.token_ids_N.to(hidden_BTD.device)).sum()
                leaves = [*outputs.values(), *updates.values()]
                found = torch.autograd.grad(log_prob, leaves)
        finally:
            for hook in hooks:
                hook.remove()
        at_heads = dict(zip(outputs, found, strict=False))
        at_updates = dict(zip(updates, found[len(outputs) :], strict=True))
        return recorded, streams, {layer: (at_heads[layer], at_updates.get(layer)) for layer in outputs}

    def _complete(
        self, attention: LayerAttention, stream: _Stream | None, gradient: tuple[Tensor, Tensor | None] | None
    ) -> LayerAttention:
        """One layer with all that was asked for."""
        values = there(attention.values, "values")
        batch, heads, length, _ = attention.query_BHTD.shape
        if "projection" in self._asked:
            values = replace(values, projection_HDM=self._anatomy[attention.layer].matrix(heads))
        if stream is not None:
            values = replace(values, residual_BTM=stream.residual())
        if gradient is not None:
            at_heads, at_update = gradient
            # Backends hand heads' outputs on as (B, T, H, D), whatever order they computed them in.
            gradient_BHTD = at_heads.reshape(batch, length, heads, -1).transpose(1, 2)
            values = replace(values, gradient_BHTD=gradient_BHTD)
            if stream is not None and at_update is not None:
                # At the update a gradient is beta times that at the sum, whatever a norm did before.
                kept_BT = (at_update.float() * stream.kept()).sum(-1)
                values = replace(values, kept_BT=kept_BT)
        return replace(attention, values=values)


class _Stream:
    """What passes one layer in a forward: what enters it, and its update before and behind a norm."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._entered: Tensor | None = None
        self._normed: tuple[Tensor, Tensor] | None = None

    def enter(self, _module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A hook on the layer: what it is given."""
        self._entered = there(first_tensor((*args, *kwargs.values())), "residual").detach()

    def norm(self, *, stop: bool) -> Callable[..., None]:
        """A hook on the norm behind the attention; with `stop`, the forward ends there."""

        def hook(_module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._normed = args[0].detach(), output.detach()
            if stop:
                raise LastLayerReached

        return hook

    def kept(self) -> Float[Tensor, "B T M"]:
        """`alpha x / beta`: the residual where the update counts once."""
        scale = self._anatomy.residual_scale / self._anatomy.update_scale
        return there(self._entered, "residual").float() * scale

    def residual(self) -> Float[Tensor, "B T M"]:
        """The same over the number by which a norm multiplies each token's update: the heads' part is then linear."""
        if self._normed is None:
            return self.kept()
        return self.kept() / self._anatomy.token_scales(*self._normed)


def layer_reader(
    model: Any,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | Heads | None = None,
    *,
    capacity: str = "attention",
    graph: str = "tokens",
) -> AttentionReader | ContributionReader:
    """What reads the layers of a model for a capacity and a graph.

    Layers are the middle third unless given, the paper's choice; over layers all that attend.

    Raises:
        CaptureError: The model's attention, or what the capacity asks for, cannot be read.
        InputError: A layer or head that the model does not have.
    """
    if layers is None and graph == "layered":
        layers = attention_layers(model)
    attention = AttentionReader(model, layers, heads)
    return ContributionReader(attention, model, capacity, graph) if asked(capacity, graph) else attention
