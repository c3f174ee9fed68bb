"""Images among prompts are refused: flow over their tokens is not traced, and would be wrong without a word."""

from __future__ import annotations

from typing import Any

from flowtracer.errors import InputError

_NO_IMAGES = "expected prompts in text, got images{where}: flow over image tokens is not traced; leave them out"


def refuse_image_columns(dataset: Any) -> None:
    """Raise where a data set names a column of images, before anything is loaded."""
    columns = {"image", "images"} & set(getattr(dataset, "column_names", None) or ())
    if columns:
        raise InputError(_NO_IMAGES.format(where=f" in the column {', '.join(sorted(columns))}"))


def refuse_images(rows: list[dict[str, Any]]) -> None:
    """Raise where a row holds an image, or TRL's batch what a processor made of one."""
    for row in rows:
        prompt = row.get("prompt")
        parts = [message.get("content") for message in prompt] if isinstance(prompt, list) else []
        kinds = {part.get("type") for content in parts if isinstance(content, list) for part in content}
        if row.get("image") is not None or row.get("images") or "pixel_values" in row or kinds & {"image", "video"}:
            raise InputError(_NO_IMAGES.format(where=""))
