"""Models of text and images, with their processors, that are made in milliseconds: nothing is downloaded."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from flowtracer.signals.images import TOKEN_KINDS, Images
from flowtracer.signals.sampled import Sampled
from tiny import tiny_tokenizer

CAUSAL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "idefics3", "llava")
"""Families whose tokens all attend to earlier ones alone."""
BOTH_WAYS = "gemma3"
"""An image's tokens attend to all of the image."""

CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}SHOWN{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
"""`SHOWN` stands for what a family writes for an image."""


class _QwenProcessor(Qwen2_5_VLProcessor):
    """Qwen's, without videos, which would need torchvision; what it does with images is the same for all of them."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id, self.video_token_id = tokenizer.convert_tokens_to_ids([self.image_token, self.video_token])
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


@dataclass(frozen=True)
class TinyVlm:
    """A random model and its processor."""

    model: Any
    processor: Any

    @property
    def image_token(self) -> int:
        """What stands in the prompt for each part of an image."""
        config = self.model.config
        return getattr(config, "image_token_id", None) or config.image_token_index


def tiny_vlm(family: str, *, seed: int = 0, **text: Any) -> TinyVlm:
    """A random model over the tiny tokenizer's vocabulary and the tokens that the family adds to it."""
    processor, options, shown = copy.deepcopy(_parts(family))
    processor.chat_template = processor.tokenizer.chat_template = CHAT_TEMPLATE.replace("SHOWN", shown)
    tokenizer = processor.tokenizer
    decoder = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **options.pop("text_config", {}),
        **text,
    }
    config = AutoConfig.for_model(family, text_config=decoder, **options)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():  # a random tower says next to nothing of its image
        for name, parameter in model.named_parameters():
            if not any(part in name for part in ("language_model", "text_model", "lm_head")) and parameter.ndim > 1:
                parameter.mul_(8) if parameter.any() else parameter.normal_()
    return TinyVlm(model=model, processor=processor)


def picture(seed: int, height: int = 28, width: int = 28) -> Image.Image:
    """Random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@functools.cache
def _parts(family: str) -> tuple[Any, dict[str, Any], str]:
    """Processor, configuration and what the template writes for an image."""
    return {"llava": _llava, "smolvlm": _idefics, "idefics3": _idefics, "gemma3": _gemma}.get(family, _qwen)(family)


def _tokenizer(*special: str) -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def _qwen(family: str) -> tuple[Any, dict[str, Any], str]:
    """Grids of patches, as many as the picture needs; positions of three parts."""
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    names |= {"vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    tokenizer = _tokenizer(*names.values())
    images = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=56 * 56)
    tower: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14}
    if family == "qwen2_vl":
        tower |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    else:
        tower |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
    if family == "qwen2_5_vl":
        tower |= {"fullatt_block_indexes": [1], "window_size": 28}
    if family == "qwen3_vl":
        tower |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    options = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    options |= {"vision_config": tower, "text_config": {"rope_scaling": rope, "rope_parameters": rope}}
    return _QwenProcessor(images, tokenizer), options, "<|vision_start|><|image_pad|><|vision_end|>"


def _idefics(family: str) -> tuple[Any, dict[str, Any], str]:
    """A picture is cut into tiles, and each stands behind a token that says where it was."""
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = _tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *places)
    images = Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
        "vision_config": {**tower, "image_size": 28, "patch_size": 7},
        "text_config": {"model_type": "llama"},
    }
    return Idefics3Processor(images, tokenizer, image_seq_len=4), options, "<image>"


def _llava(_: str) -> tuple[Any, dict[str, Any], str]:
    """A square of patches an image."""
    tokenizer = _tokenizer("<image>")
    size = {"height": 28, "width": 28}
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "vision_feature_layer": -1,
        "vision_config": {"model_type": "clip_vision_model", **tower, "image_size": 28, "patch_size": 14},
        "text_config": {"model_type": "llama"},
    }
    processor = LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return processor, options, "<image>"


def _gemma(_: str) -> tuple[Any, dict[str, Any], str]:
    """As many tokens an image whatever its size, and they see each other."""
    names = {"boi": "<start_of_image>", "eoi": "<end_of_image>", "image": "<image_soft_token>"}
    tokenizer = _tokenizer(*names.values())
    for name, token in names.items():
        setattr(tokenizer, f"{name}_token", token)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {f"{name}_token_index": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
    options |= {"mm_tokens_per_image": 4, "vision_config": {**tower, "image_size": 28, "patch_size": 7}}
    return Gemma3Processor(images, tokenizer, image_seq_length=4), options, names["boi"]


def asked(vlm: TinyVlm, rows: list[tuple[list[Image.Image], str, str]]) -> dict[str, Any]:
    """Pictures, a question and a response each, as TRL's batch carries what it has sampled."""
    prompts = [
        [{"role": "user", "content": [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": q}]}]
        for pictures, q, _ in rows
    ]
    batch = vlm.processor.apply_chat_template(
        conversation=prompts,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"padding": True, "padding_side": "left", "return_tensors": "pt"},
    )
    tokenizer = vlm.processor.tokenizer
    responses = tokenizer([r for *_, r in rows], padding=True, padding_side="right", return_tensors="pt")
    kinds = {name: batch.pop(name) for name in TOKEN_KINDS if name in batch}
    nothing = torch.zeros_like(responses["input_ids"])
    return {
        "prompt_ids": batch.pop("input_ids"),
        "prompt_mask": batch.pop("attention_mask"),
        "completion_ids": responses["input_ids"],
        "completion_mask": responses["attention_mask"],
        **{name: torch.cat([kind, nothing], 1) for name, kind in kinds.items()},
        **batch,
        "num_images": [len(pictures) for pictures, *_ in rows],
    }


def sampled_of(batch: dict[str, Any]) -> Sampled:
    """The same for credit."""
    return Sampled(
        prompt_ids_BP=batch["prompt_ids"],
        prompt_mask_BP=batch["prompt_mask"],
        response_ids_BR=batch["completion_ids"],
        response_mask_BR=batch["completion_mask"],
        images=Images.of(batch, len(batch["prompt_ids"])),
    )
