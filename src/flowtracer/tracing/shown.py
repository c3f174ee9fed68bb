"""A prompt that shows images, as a model takes it: tokens, what goes with them, and which of them are which patch.

1. The chat template writes a mark for each image, and the model's own processor makes of text and pictures the prompt's
   tokens, a run for each picture, and pixels with what else the family needs.
2. The response's tokens come behind those of the prompt, as in generation.
3. Where each patch lies is told by `patches.py`, and a small copy of each picture goes into the trace.

Pixels are made when the model runs, and let go of then: of a few hundred rollouts that wait for it they are gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowtracer.errors import TraceError
from flowtracer.model.forward import image_token_of
from flowtracer.shapes import Int, ndarray
from flowtracer.text.encoding import EncodedText, encode_sampled, prompt_text, refuse_ill_formed, with_template
from flowtracer.text.messages import images_of
from flowtracer.trace.images import TraceImage
from flowtracer.trace.pictures import open_picture, small_copy
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.patches import shown_in_squares, views_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a prompt shows, and how to show it to the model again."""

    images: tuple[TraceImage, ...]
    processor: Any
    asked: str
    """The prompt as text, before the processor."""
    templated: bool
    """Whether that has its special tokens already."""
    sources: Sequence[Any]
    """Pictures, or their paths."""

    def inputs(self, model: Any, length: int) -> dict[str, Tensor]:
        """What a forward over the first `length` tokens takes beside them, on the model's device.

        Raises:
            TraceError: A picture cannot be read any more.
        """
        given = _processed(self.processor, self.asked, [open_picture(s) for s in self.sources], self.templated)
        prompt = given["input_ids"].shape[1]
        made: dict[str, Tensor] = {}
        for name, value in given.items():
            if name in _OF_TEXT or not isinstance(value, Tensor):
                continue
            if name.endswith("token_type_ids"):  # of the response's tokens none is of an image
                value = torch.nn.functional.pad(value, (0, length - prompt))
            made[name] = value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        return made


def encode_shown(model: Any, tokenizer: Any, processor: Any, rollout: Rollout) -> tuple[EncodedText, Shown]:
    """A rollout whose prompt shows images, as tokens.

    Args:
        model: The model that is shown them.
        tokenizer: Its tokenizer.
        processor: Its processor; None where there is none.
        rollout: Text and pictures; its `token_ids`, where known, must be what the processor makes of the prompt.

    Raises:
        TraceError: This model takes no images, or not these; `.reason` names why.
        MissingDependencyError: pillow is not installed.
    """
    token = image_token_of(model)
    if token is None:
        raise TraceError(
            "text_model",
            f"expected a prompt in text, got an image: {type(model).__name__} reads text alone; take a model of text "
            "and images, loaded as one (AutoModelForImageTextToText)",
        )
    if processor is None:
        raise TraceError(
            "no_processor",
            "expected the model's processor, which makes tokens of an image, got its tokenizer alone; pass "
            "Tracer(model, AutoProcessor.from_pretrained(...)), which needs pillow and, of some families, torchvision",
        )
    asked, templated = prompt_text(with_template(tokenizer, processor), rollout.prompt)
    refuse_ill_formed(asked + rollout.response)
    sources = images_of(rollout.prompt)
    pictures = [open_picture(source) for source in sources]
    given = _processed(processor, asked, pictures, templated)
    prompt_ids = given["input_ids"][0].tolist()
    response_ids = list(tokenizer(rollout.response, add_special_tokens=False)["input_ids"])
    if rollout.token_ids is not None:
        if list(rollout.token_ids[0]) != prompt_ids:
            raise TraceError(
                "other_tokens",
                f"expected a prompt of the {len(prompt_ids)} tokens that the processor makes of it, got "
                f"{len(rollout.token_ids[0])} others; leave token_ids out, or pass the prompt that they are of",
            )
        response_ids = list(rollout.token_ids[1])
    shown = Shown(
        images=_images(model, tokenizer, processor, np.array(prompt_ids), given, pictures),
        processor=processor,
        asked=asked,
        templated=templated,
        sources=sources,
    )
    return encode_sampled(tokenizer, prompt_ids, response_ids), shown


_OF_TEXT = ("input_ids", "attention_mask")


def _processed(processor: Any, asked: str, pictures: Sequence[Any], templated: bool) -> Mapping[str, Any]:
    """What the model's processor makes of one prompt."""
    try:
        return processor(text=[asked], images=[list(pictures)], return_tensors="pt", add_special_tokens=not templated)
    except (ValueError, TypeError, IndexError) as error:  # such as fewer marks in the text than there are pictures
        raise TraceError(
            "bad_image",
            f"expected images that the model's processor takes, got {len(pictures)}: {error}; see how many and of "
            "which size it takes",
        ) from error


def _images(
    model: Any,
    tokenizer: Any,
    processor: Any,
    ids_P: Int[ndarray, " P"],
    given: Mapping[str, Any],
    pictures: Sequence[Any],
) -> tuple[TraceImage, ...]:
    tokens = np.flatnonzero(ids_P == image_token_of(model))
    if not len(tokens):
        raise TraceError(
            "image_tokens", f"expected tokens of {len(pictures)} images in the prompt, got none; see its template"
        )
    pieces = tokenizer.convert_ids_to_tokens(ids_P.tolist())
    views = views_of(model.config, pieces, tokens, given, len(pictures))
    placed = views is not None
    if views is None:
        views = [(row[None],) for row in _by_picture(model, tokenizer, processor, tokens, pictures)]
    seen = pictures
    if shown_in_squares(given, len(pictures)):
        seen = [_as_shown(processor.image_processor, pixels_CHW) for pixels_CHW in given["pixel_values"]]
    return tuple(
        TraceImage(views=own, placed=placed, picture=small_copy(picture))
        for own, picture in zip(views, seen, strict=True)
    )


def _as_shown(image_processor: Any, pixels_CHW: Tensor) -> Any:
    """The square that an image processor has made of a picture, as a picture again."""
    from PIL import Image

    pixels = pixels_CHW.double().cpu().numpy()
    if getattr(image_processor, "do_normalize", False):
        mean, deviation = (
            np.array(values)[:, None, None] for values in (image_processor.image_mean, image_processor.image_std)
        )
        pixels = pixels * deviation + mean
    if getattr(image_processor, "do_rescale", True):
        pixels = pixels / image_processor.rescale_factor
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _by_picture(
    model: Any, tokenizer: Any, processor: Any, tokens: Int[ndarray, " N"], pictures: Sequence[Any]
) -> list[Int[ndarray, " _"]]:
    """The tokens of each picture, of which there are as many as where it is shown alone."""
    if len(pictures) == 1:
        return [tokens]
    alone = [{"role": "user", "content": [{"type": "image"}]}]
    asked, templated = prompt_text(with_template(tokenizer, processor), alone)
    ids = [_processed(processor, asked, [picture], templated)["input_ids"] for picture in pictures]
    counts = [int((ids_1P == image_token_of(model)).sum()) for ids_1P in ids]
    if sum(counts) != len(tokens):
        raise TraceError(
            "image_tokens",
            f"expected {sum(counts)} tokens of {len(pictures)} images, as of each alone, got {len(tokens)}; show one",
        )
    return np.split(tokens, np.cumsum(counts)[:-1])
