"""Gradients of log-probabilities: minibatches of many strategies backward, and single tokens forward.

A strategy's minibatch gradient is `g_c = sum_it a_it grad log pi(y_it)`; strategies differ in their weights `a` alone.

1. *Backward*, for norms: responses of like length run together, and one forward serves all strategies; each costs one
   backward pass through its graph. Responses that no strategy weighs are left out.
2. *Forward mode*, for inner products: one pass along a direction `v` gives `<grad log pi(y_it), v>` of every token at
   once, so `<g_c, v> = sum_it a_it <grad log pi(y_it), v>` of any number of strategies needs no gradient. Fused
   attention has no forward mode, so it runs eagerly.

Both see the model as a function of some of its parameters and leave it untouched.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, jvp, vmap

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.model.forward import accepted, evaluating
from flowtracer.shapes import Float, Int
from flowtracer.signals.sampled import Few, Sampled

_PRECISE = (torch.float32, torch.float64)


class Policy:
    """A model as a function of some of its parameters, which gradients are taken by.

    Args:
        model: A causal language model in float32 or float64.
        parameters: "all", "lora" for adapters alone, or a regular expression that is searched for in their names.
        temperature: What logits are divided by: the policy as it samples.
        rows_per_forward: Sequences in one forward.

    Raises:
        InputError: No parameter of that name, or one of a precision too low for inner products.
    """

    def __init__(
        self, model: Any, *, parameters: str = "all", temperature: float = 1.0, rows_per_forward: int = 16
    ) -> None:
        self.model = model
        self._parameters = choose_parameters(model, parameters)
        self._temperature = temperature
        self.rows_per_forward = rows_per_forward

    @property
    def size(self) -> int:
        """Numbers in a gradient."""
        return sum(value.numel() for value in self._parameters.values())

    @property
    def device(self) -> torch.device:
        """Where gradients lie."""
        return next(iter(self._parameters.values())).device

    def gradients(self, sampled: Sampled, weights_KBR: Float[Tensor, "K B R"]) -> Float[Tensor, "K N"]:
        """`sum_it a_it grad log pi(y_it)` of each of K maps of weights; what stands on padding is ignored."""
        dtype = next(iter(self._parameters.values())).dtype
        total_KN = torch.zeros(len(weights_KBR), self.size, device=self.device, dtype=dtype)
        weights_KBR = weights_KBR.to(dtype) * sampled.response_mask_BR
        leaves = {name: value.detach().requires_grad_() for name, value in self._parameters.items()}
        with evaluating(self.model):
            for few in self._pieces(sampled, weights_KBR.ne(0).any(0).any(-1)):
                log_probs_BR = self._log_probs(leaves, few)
                for number, weights_BR in enumerate(weights_KBR[:, few.numbers, : log_probs_BR.shape[1]]):
                    if weights_BR.any():
                        parts = torch.autograd.grad(
                            log_probs_BR, list(leaves.values()), weights_BR, retain_graph=True, materialize_grads=True
                        )
                        total_KN[number] += torch.cat([part.flatten() for part in parts])
        return total_KN

    def slopes(self, sampled: Sampled, directions_DN: Float[Tensor, "D N"]) -> Float[Tensor, "D B R"]:
        """`<grad log pi(y_it), v>` of every response token, along each direction; 0 on padding."""
        point = {name: value.detach() for name, value in self._parameters.items()}
        sizes = [value.numel() for value in point.values()]
        parts = directions_DN.to(next(iter(point.values())).dtype).split(sizes, dim=1)
        tangents = {name: part.view(-1, *value.shape) for (name, value), part in zip(point.items(), parts, strict=True)}
        slopes_DBR = directions_DN.new_zeros(len(directions_DN), *sampled.response_ids_BR.shape)
        everything_B = torch.ones(len(sampled), dtype=torch.bool, device=sampled.device)
        with evaluating(self.model), eager(self.model), torch.no_grad():
            for few in self._pieces(sampled, everything_B):

                def along(tangent: Mapping[str, Tensor], few: Few = few) -> Tensor:
                    return jvp(lambda values: self._log_probs(values, few), (point,), (tangent,))[1]

                found_DBR = vmap(along)(tangents)
                slopes_DBR[:, few.numbers, : found_DBR.shape[2]] = found_DBR.to(slopes_DBR.dtype)
        return slopes_DBR * sampled.response_mask_BR

    def _pieces(self, sampled: Sampled, chosen_B: Tensor) -> Iterator[Few]:
        """The chosen sequences, those of like length together."""
        lengths_B = sampled.response_mask_BR.sum(-1)
        order_B = lengths_B.argsort(stable=True)
        for numbers in sampled.slices(self.rows_per_forward, order_B[chosen_B[order_B]]):
            yield sampled.few(numbers, int(lengths_B[numbers].max()))

    def _log_probs(self, parameters: Mapping[str, Tensor], few: Few) -> Float[Tensor, "B R"]:
        """Log-probability of each response token."""
        ids_BR: Int[Tensor, "B R"] = few.ids_BT[:, few.first :]
        kept = ids_BR.shape[1] + 1
        options = accepted(self.model.forward, {"use_cache": False, "logits_to_keep": kept})
        inputs = few.inputs() | options
        logits_BRV = functional_call(self.model, dict(parameters), (), inputs).logits[:, -kept:-1]
        log_probs_BRV = (logits_BRV / self._temperature).log_softmax(-1)
        return log_probs_BRV.gather(-1, ids_BR[..., None]).squeeze(-1)


def choose_parameters(model: Any, which: str) -> dict[str, Tensor]:
    """Parameters by name.

    Raises:
        InputError: None of that name, or one of a precision too low for inner products.
        MissingDependencyError: "lora" of a model without adapters; `with_adapters` gives it some.
    """
    if which == "lora" and not any("lora_" in name for name, _ in model.named_parameters()):
        raise InputError("expected a model with LoRA parameters, got one without; see with_adapters")
    pattern = {"all": "", "lora": "lora_"}.get(which, which)
    try:
        chosen = {name: value for name, value in model.named_parameters() if re.search(pattern, name)}
    except re.error as error:
        raise InputError(
            f'expected parameters as "all", "lora" or a regular expression, got {which!r}: {error}'
        ) from error
    if not chosen:
        some = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise InputError(f"expected names of parameters that {which!r} is found in, got none; names are {some} ...")
    low = sorted({str(value.dtype) for value in model.parameters() if value.dtype not in _PRECISE})
    if low:
        raise InputError(f"expected a model in float32, got {', '.join(low)}: inner products of gradients need digits")
    return chosen


def with_adapters(model: Any, *, rank: int = 16) -> Any:
    """The model with LoRA adapters on its linear layers, as peft makes them; one that has some, as it is.

    They are drawn from a seed of their own: a run that goes on finds the same.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    if any("lora_" in name for name, _ in model.named_parameters()):
        return model
    if importlib.util.find_spec("peft") is None:
        raise MissingDependencyError("expected peft to give a model LoRA parameters, got none: pip install peft")
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(r=rank, task_type="CAUSAL_LM", target_modules="all-linear"))


@contextlib.contextmanager
def eager(model: Any) -> Iterator[None]:
    """Attention in plain operations for the duration."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
