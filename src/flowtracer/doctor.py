"""What is installed, what the machine can do, and how long a text of a model can be traced on it."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import sys
from collections.abc import Mapping
from typing import Any

MISSING = "not installed"

LIBRARIES = (
    "flowtracer",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "reasoning-gym",
    "gguf",
    "math-verify",
    "matplotlib",
)

EXTRAS = {
    "trl": ("train", "training with credit, and tasks"),
    "math-verify": ("eval", "benchmarks, and mathematics graded"),
    "matplotlib": ("report", "figures and studies"),
    "gguf": ("gguf", "models stored as .gguf, such as smollm2"),
}
"""Of a library: the extra that brings it, and what for."""


def machine() -> dict[str, str]:
    """Interpreter, system, processors, memory and accelerator."""
    import torch

    accelerator = "none"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        accelerator = f"{properties.name}, {_gib(properties.total_memory)}"
    elif torch.backends.mps.is_available():
        accelerator = "Apple GPU"
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "threads of torch": str(torch.get_num_threads()),
        "free memory": _gib(free_memory("cuda" if torch.cuda.is_available() else "cpu")),
        "accelerator": accelerator,
    }


def installed() -> dict[str, str]:
    """Version of every library that FlowTracer builds on."""
    return {name: _version(name) for name in LIBRARIES}


def next_steps(versions: Mapping[str, str], model: str | None) -> dict[str, str]:
    """What to do next, as commands by what they are for."""
    steps = {
        what: f'pip install "flowtracer[{extra}]"'
        for library, (extra, what) in EXTRAS.items()
        if versions[library] == MISSING
    }
    if model is None:
        return {**steps, "can a model be traced": "flowtracer doctor --model NAME"}
    return {
        **steps,
        "a first trace": f'flowtracer try "QUESTION" "RESPONSE" --model {model} --html first.html',
        "stored rollouts": f"flowtracer trace ROLLOUTS.jsonl --model {model} --out traces --html",
    }


def check_model(name_or_path: str) -> dict[str, str]:
    """Prove that a model's attention can be read, and estimate the longest text that fits into free memory.

    Raises:
        InputError: Nothing loadable under that name.
        CaptureError: The model's attention cannot be read.
    """
    from flowtracer.model.capture import AttentionReader
    from flowtracer.model.forward import context_length
    from flowtracer.model.load import load_model

    model, _ = load_model(name_or_path)
    reader = AttentionReader(model)
    config = model.config.get_text_config(decoder=True)
    free, context = free_memory(model.device.type), context_length(model)
    rows = {
        "parameters": f"{model.num_parameters() / 1e6:.0f} M, {str(model.dtype).removeprefix('torch.')}",
        "attention": f"{config._attn_implementation}, read and reproduced",
        "layers averaged": f"{reader.layers[0]}-{reader.layers[-1]} of {config.num_hidden_layers}",
        "context": f"{context:,} tokens" if context else "not stated",
    }
    for kind, length in longest_lengths(config, len(reader.layers), model.dtype.itemsize, free).items():
        whole = context is not None and length >= context
        rows[f"longest, {kind}"] = f"{'its whole context' if whole else f'about {length:,} tokens'} in {_gib(free)}"
    return rows


def longest_lengths(config: Any, layers: int, itemsize: int, free: int) -> dict[str, int]:
    """Longest single text whose trace fits into `free` bytes, with the matrix stored and with it recomputed.

    Per token: queries and keys of the chosen layers, and the hidden states of one layer at its widest. Stored, half
    of T^2 float32 come on top. An estimate from above, good to a factor of about 1.5.
    """
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    captured = layers * (heads + kv_heads) * width * itemsize
    intermediate = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    working = (6 * config.hidden_size + 3 * intermediate) * itemsize
    per_token = captured + working
    # 2 T^2 + per_token T = free
    stored = (-per_token + math.sqrt(per_token**2 + 8 * free)) / 4
    return {"matrix stored": int(stored), "matrix recomputed": int(free / per_token)}


def free_memory(device: str) -> int:
    """Bytes that can still be taken on a device."""
    import psutil
    import torch

    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
