"""What the images of a prompt do to each token: the policy beside what it would say of other images, or of none.

1. *Without images*: the tokens that stand for them are taken out of the prompt, and what is left runs as text. What
   frames an image, such as the tokens that open and close it, stays.
2. *Divergence* of a token: the KL divergence of the distribution that it was drawn from, with images, from that
   without, `sum_v p(v) (log p(v) - log q(v))`, both at the sampling temperature.
3. *Blackened*: squares of 14 pixels of what the model is shown, each black with a probability of a half (VPPO,
   arXiv 2510.09285); where a processor lays an image out in patches, a patch is a square. *Noisy*: Gaussian noise of
   a deviation of 0.1 on the normalised pixels. Both are drawn by the response's own seed, on the CPU: the same in
   whatever batch and on whatever device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float
from flowtracer.signals.images import Images
from flowtracer.signals.logits import token_logits
from flowtracer.signals.sampled import Few, Sampled

SQUARE = 14
"""Pixels of a side of what is blackened as one."""
SHARE = 0.5
"""Probability of a square to be black."""
NOISE = 0.1
"""Deviation of the noise, in the units of normalised pixels, whose own is about 1."""

Change = Callable[[Tensor, torch.Generator], Tensor]
"""What is done to the pixels of one sequence, with random numbers of its own."""


def black_of(image_processor: Any) -> tuple[float, ...] | None:
    """What an image processor makes of a black pixel, by channel; None without a processor."""
    if image_processor is None:
        return None
    if not getattr(image_processor, "do_normalize", False):
        return (0.0, 0.0, 0.0)
    pairs = zip(image_processor.image_mean, image_processor.image_std, strict=True)
    return tuple(-mean / deviation for mean, deviation in pairs)


def shown_in(sampled: Sampled) -> Bool[Tensor, " B"]:
    """Sequences whose prompts show an image."""
    shown = [False] * len(sampled) if sampled.images is None else sampled.images.shown
    return torch.tensor(shown, device=sampled.device)


def without_images(sampled: Sampled, image_token: int) -> Sampled:
    """The same sequences, as if their prompts had shown nothing."""
    kept_BP = sampled.prompt_mask_BP.bool() & (sampled.prompt_ids_BP != image_token)
    prompts = [ids_P[kept_P].tolist() for ids_P, kept_P in zip(sampled.prompt_ids_BP, kept_BP, strict=True)]
    text = Sampled.padded([(ids, []) for ids in prompts], sampled.device)
    return replace(sampled, prompt_ids_BP=text.prompt_ids_BP, prompt_mask_BP=text.prompt_mask_BP, images=None)


def read_divergence(
    reader: LogitReader, sampled: Sampled, image_token: int, *, temperature: float = 1.0, rows_per_forward: int = 8
) -> Float[Tensor, "B R"]:
    """KL divergence of each response token's distribution from that without images; 0 where none are shown.

    Every rank runs the same number of forwards. Padding gets 0.
    """
    text = without_images(sampled, image_token)
    divergence_BR = torch.zeros(sampled.response_ids_BR.shape, device=sampled.device)
    for rows in sampled.slices(rows_per_forward):
        few, bare = sampled.few(rows), text.few(rows)
        with evaluating(reader.model), torch.no_grad():
            seen_ND, blind_ND = _predicting(reader, few), _predicting(reader, bare)
            parts = []
            for piece in reader.chunks(len(seen_ND)):
                seen_NV, blind_NV = (
                    (reader.logits(hidden_ND[piece]) / temperature).log_softmax(-1) for hidden_ND in (seen_ND, blind_ND)
                )
                parts.append((seen_NV.exp() * (seen_NV - blind_NV)).sum(-1))
        counted_BR = few.mask_BT[:, few.first :].bool()
        found_N = torch.cat(parts) if parts else divergence_BR.new_zeros(0)
        divergence_BR[rows] = torch.zeros_like(divergence_BR[rows]).masked_scatter(counted_BR, found_N)
    return torch.where(shown_in(sampled)[:, None], divergence_BR.clamp_min(0), 0.0)


def _predicting(reader: LogitReader, few: Few) -> Float[Tensor, "N D"]:
    """Hidden states that predict the response tokens, one after the other."""
    counted_BR = few.mask_BT[:, few.first :].bool()
    return reader.hidden(few.inputs())[:, few.first - 1 : -1][counted_BR]


def read_changed(
    reader: LogitReader,
    sampled: Sampled,
    change: Change,
    seeds_B: Sequence[int],
    *,
    temperature: float = 1.0,
    rows_per_forward: int = 8,
) -> Float[Tensor, "B R"]:
    """Log-probability of each response token with the images changed.

    Every rank runs the same number of forwards. Padding gets 0.
    """
    if sampled.images is not None:
        sampled = replace(sampled, images=_changed(sampled.images, change, seeds_B))
    options: dict[str, Any] = {"temperature": temperature, "rows_per_forward": rows_per_forward}
    return token_logits(reader, sampled, **options)[1]


def _changed(images: Images, change: Change, seeds_B: Sequence[int]) -> Images:
    parts = []
    for pixels, seed in zip(images.pieces["pixel_values"], seeds_B, strict=True):
        changed = change(pixels, torch.Generator().manual_seed(seed % 2**63)).to(pixels)
        if pixels.ndim >= 4:  # a map of zeros fills up a sequence with fewer tiles, and models know it by its zeros
            filling = (pixels == 0).flatten(-3).all(-1)[..., None, None, None]
            changed = torch.where(filling, pixels, changed)
        parts.append(changed)
    return replace(images, pixels={**images.pixels, "pixel_values": torch.cat(parts)})


def blackened(black: Sequence[float]) -> Change:
    """Squares turned black, which is this value in each channel.

    Raises:
        InputError: Pixels are neither maps of channels nor flat patches.
    """

    def change(pixels: Tensor, generator: torch.Generator) -> Tensor:
        if pixels.ndim == 2:  # a row a patch, its channels one after the other
            chosen = torch.rand(len(pixels), 1, generator=generator) < SHARE
            value = torch.tensor(black).repeat_interleave(pixels.shape[1] // len(black))
        elif pixels.ndim >= 4 and pixels.shape[-3] == len(black):
            height, width = pixels.shape[-2:]
            squares = -(-height // SQUARE), -(-width // SQUARE)
            chosen = torch.rand(*pixels.shape[:-3], 1, *squares, generator=generator) < SHARE
            chosen = chosen.repeat_interleave(SQUARE, -2).repeat_interleave(SQUARE, -1)[..., :height, :width]
            value = torch.tensor(black)[:, None, None]
        else:
            raise InputError(
                f"expected pixels as channels x height x width or as flat patches, got {tuple(pixels.shape)}: where "
                "this processor puts a pixel is not known, so that none can be blackened; use another credit"
            )
        return torch.where(chosen.to(pixels.device), value.to(pixels), pixels)

    return change


def noisy(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise on every pixel."""
    return pixels.float() + (NOISE * torch.randn(pixels.shape, generator=generator)).to(pixels.device)
