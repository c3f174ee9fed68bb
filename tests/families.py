"""One small random model of each family, with attention that is far from uniform."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

BASE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
LATENT = {
    **MOE,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "head_dim": 8,
}
GPT = {
    "vocab_size": 128,
    "n_embd": 64,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 8}

PLAIN = """
llama arcee ernie4_5 gemma glm glm4 granite helium hunyuan_v1_dense lfm2 ministral3 nemotron olmo2 opt phi phi3 qwen2
qwen3 seed_oss smollm3 stablelm starcoder2
"""

FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(PLAIN.split(), BASE),
    **{name: {**BASE, **WINDOW} for name in ("cohere2", "exaone4", "gemma2", "gemma3_text", "mistral", "olmo3")},
    "gemma4_text": {**BASE, **WINDOW, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    **{name: {**BASE, **MOE} for name in ("mixtral", "qwen3_moe", "glm4_moe", "llama4_text", "minimax")},
    **{name: {**BASE, **MOE} for name in ("qwen3_next", "qwen3_5_text")},
    "gpt_oss": {**BASE, **MOE, **WINDOW},
    **{name: {**BASE, **LATENT} for name in ("deepseek_v2", "deepseek_v3", "deepseek_v32")},
    "gpt2": GPT,
    "gpt_neox": {**BASE, "num_key_value_heads": 4},
}
EAGER_ONLY = {"gemma2", "gpt_oss"}
REFUSED: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 128, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "falcon": {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mamba": {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2},
    "mpt": {"vocab_size": 128, "d_model": 64, "n_layers": 2, "n_heads": 4},
}
NEWER = {"deepseek_v32"}
"""Families that the oldest transformers which we support does not have."""
for name in NEWER - set(CONFIG_MAPPING):
    del FAMILIES[name]
SINCE = {"nemotron": "5.13", "codegen": "5.24", "gptj": "5.24"}
"""The transformers from which these attend through its interface; before, they are refused."""
FAMILIES |= {name: {**GPT, "rotary_dim": 8} for name in ("codegen", "gptj")}
for name, since in SINCE.items():
    if Version(transformers.__version__) < Version(since):
        REFUSED[name] = FAMILIES.pop(name)


def build(family: str, options: dict[str, Any], backend: str) -> Any:
    """A model of the family on a backend; the same weights on every backend."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=backend)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and any(part in name for part in ("q_", "k_", "qkv", "query", "c_attn", "kv_")):
                weight.mul_(12)  # initial weights leave attention all but uniform
            if "sinks" in name:
                weight.uniform_(0, 2)
    return model.eval()


@functools.cache
def model_of(family: str, backend: str = "sdpa") -> Any:
    """The tested model of a family; do not change it."""
    return build(family, FAMILIES[family], "eager" if family in EAGER_ONLY else backend)
