"""Models of real shapes with random weights, and a tokenizer for any vocabulary: nothing has to be downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

_COMMON = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8, "max_position_embeddings": 40960}

QWEN3: dict[str, dict[str, Any]] = {
    name: {
        **_COMMON,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }
    for name, hidden, intermediate, layers, heads, tied in (
        ("0.6B", 1024, 3072, 28, 16, True),
        ("4B", 2560, 9728, 36, 32, True),
        ("8B", 4096, 12288, 36, 32, False),
        ("32B", 5120, 25600, 64, 64, False),
    )
}
"""Options of transformers' `Qwen3Config` by the size of the model, as they are published."""


def random_model(shape: Mapping[str, Any], *, device: str, longest: int | None = None) -> Any:
    """A causal model with random weights in bfloat16.

    Args:
        shape: A value of `QWEN3`.
        device: Where its weights are drawn.
        longest: Tokens it must take; None for what the shape says.
    """
    torch.manual_seed(0)
    positions = longest or shape["max_position_embeddings"]
    config = AutoConfig.for_model("qwen3", **{**shape, "max_position_embeddings": positions})
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def byte_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token a byte, and fillers up to the model's vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *(f"<{n}>" for n in range(vocabulary - len(alphabet) - 1)), "<|end|>"]
    tokenizer = Tokenizer(models.BPE(vocab={entry: n for n, entry in enumerate(entries)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")  # noqa: S106
