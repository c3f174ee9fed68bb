"""How a model is run: its mode, its device, and the options that its forward takes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for the duration: no dropout, and no layer that runs twice to save memory.

    Afterwards every module has the mode that it had: a part that its user froze in evaluation mode stays so.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def accepted(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that a function takes by name; a model's own code may know fewer than transformers' does."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in options.items() if takes_all or name in parameters}


def cache_argument(model: Any) -> str:
    """What the model's forward calls its cache: transformers 5.24 says "cache" where it said "past_key_values"."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def context_length(model: Any) -> int | None:
    """The most tokens that the model has positions for; None where it does not say."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)


def backbone_of(model: Any) -> Any:
    """All of a model but its head: of one that takes images the towers too, which its decoder is without."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter wraps it
    return whole.base_model


def image_token_of(model: Any) -> int | None:
    """The token that stands in a prompt for each part of an image; None of a model of text alone."""
    names = ("image_token_id", "image_token_index")
    return next((token for name in names if (token := getattr(model.config, name, None)) is not None), None)


def device_of(model: Any) -> torch.device:
    """Where the model takes its input."""
    return model.get_input_embeddings().weight.device
