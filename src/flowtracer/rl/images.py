"""Which prompts with images can be trained on, and with what: what cannot is refused by name instead of read wrongly.

Credit runs over images as over text (`flowtracer.signals.images`), with three exceptions. Strategies that ask for the
gold answer write prompts of their own, in text. Traces of a training are of text. And an image that a tool shows stands
in a response, which credit cuts where it answers.
"""

from __future__ import annotations

from typing import Any

from flowtracer.credit import Credit, needs_of
from flowtracer.errors import InputError

_IN_TEXT = frozenset({"gain", "gold"})
"""Needs whose passes run over prompts that are written anew, in text."""


def refuse_beside_images(credit: Credit, trace_steps: int, where: str = "") -> None:
    """Raise where a run cannot have images among its prompts.

    Args:
        credit: The run's strategy.
        trace_steps: How often it keeps traces; 0 for never.
        where: Where the images are, to be told.

    Raises:
        InputError: Says what needs text.
    """
    needs = sorted(needs_of(credit) & _IN_TEXT)
    if needs:
        raise InputError(
            f"expected prompts in text, got images{where}: {', '.join(needs)} is read behind prompts that are written "
            "anew, without images; use another credit, or leave the images out"
        )
    if trace_steps:
        raise InputError(
            f"expected prompts in text, got images{where}: traces of a training are of text alone; set "
            "trace_steps=0, or leave the images out"
        )


def columns_of_images(dataset: Any) -> str:
    """Where a data set's columns hold images, to be told; empty where they hold none."""
    columns = {"image", "images"} & set(getattr(dataset, "column_names", None) or ())
    return f" in the column {', '.join(sorted(columns))}" if columns else ""


def show_images(rows: list[dict[str, Any]]) -> bool:
    """Whether any row shows an image.

    Raises:
        InputError: A row shows a video.
    """
    kinds: set[Any] = set()
    for row in rows:
        prompt = row.get("prompt")
        parts = [message.get("content") for message in prompt] if isinstance(prompt, list) else []
        kinds |= {part.get("type") for content in parts if isinstance(content, list) for part in content}
        if row.get("image") is not None or row.get("images"):
            kinds.add("image")
    if "video" in kinds:
        raise InputError("expected prompts of text and images, got a video; leave it out")
    return "image" in kinds


def refuse_in_responses(batch: dict[str, Any], image_token: int | None) -> None:
    """Raise where an image stands in a response, as one that a tool shows.

    Raises:
        InputError: Credit reads responses in parts.
    """
    if bool(((batch["completion_ids"] == image_token) & batch["completion_mask"].bool()).any()):
        raise InputError(
            "expected images in prompts alone, got one in a response: credit reads a response up to its answer, and "
            "would cut the image; let tools answer in text"
        )
