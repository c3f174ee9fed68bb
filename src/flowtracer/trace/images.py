"""Images of a trace: which token is which part of a picture, and a small copy of that to look at.

A model reads a picture as tokens among the prompt's, each for a patch of it. Where a patch lies is known for most
families (`flowtracer.tracing.patches`). A model that cuts a picture into tiles sees it twice: in fine patches, and as
a whole in coarse ones. These are two views of one image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.shapes import Int, ndarray

WEBP = "image/webp"
"""What a picture is, in a trace and in a page."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # arrays have no one truth value
class TraceImage:
    """One image of a prompt."""

    views: tuple[Int[ndarray, "_ _"], ...]
    """Tokens of its patches where they lie, a grid a view, the finest first."""
    placed: bool
    """Whether it is known where patches lie; if not, the only view is a row of them in their order."""
    picture: bytes
    """What the model was shown, as a small WebP."""

    @property
    def tokens(self) -> Int[ndarray, " N"]:
        """All of its tokens, in order."""
        return np.sort(np.concatenate([view.ravel() for view in self.views]))


def patch_labels(images: Sequence[TraceImage]) -> dict[int, str]:
    """What each token of an image is called: "image 1, row 3, column 5", counted from 1."""
    return {
        int(token): _label(number, image, depth, row, column)
        for number, image in enumerate(images, 1)
        for depth, view in enumerate(image.views)
        for (row, column), token in np.ndenumerate(view)
    }


def patch_label(images: Sequence[TraceImage], token: int) -> str | None:
    """What one token is called; None of text."""
    for number, image in enumerate(images, 1):
        for depth, view in enumerate(image.views):
            for row, column in np.argwhere(view == token).tolist():
                return _label(number, image, depth, row, column)
    return None


def _label(number: int, image: TraceImage, depth: int, row: int, column: int) -> str:
    if not image.placed:
        return f"image {number}, patch {column + 1}"
    whole = " as a whole" if depth else ""
    return f"image {number}{whole}, row {row + 1}, column {column + 1}"


def image_marks(images: Sequence[TraceImage], length: int) -> Int[ndarray, " T"]:
    """Of each token the number of the image that it is of, from 1 on; 0 of text."""
    marks_T = np.zeros(length, dtype=np.int64)
    for number, image in enumerate(images, 1):
        marks_T[image.tokens] = number
    return marks_T


def frame_marks(images_T: Int[ndarray, " T"], pieces: Sequence[str]) -> Int[ndarray, " T"]:
    """Of each token the number of the image that it frames; 0 of others.

    A frame is tags that stand directly before, behind or between patches, such as `<|vision_start|>` and
    `<row_1_col_2>`.

    Args:
        images_T: As `image_marks` gives them.
        pieces: Text of each token.
    """
    frames_T = np.zeros_like(images_T)
    inside = np.flatnonzero(images_T)
    for step in (-1, 1):
        for start in inside:
            token = start + step
            while 0 <= token < len(pieces) and not images_T[token] and not frames_T[token] and _is_tag(pieces[token]):
                frames_T[token] = images_T[start]
                token += step
    return frames_T


def _is_tag(piece: str) -> bool:
    return _TAG.fullmatch(piece) is not None


_TAG = re.compile(r"\s*[<\[][^<>\[\]\s]{1,60}[>\]]\s*")


def to_header(images: Sequence[TraceImage]) -> dict[str, Any]:
    """What a file's header says of images; nothing where there are none."""
    return {"images": [{"views": len(image.views), "placed": image.placed} for image in images]} if images else {}


def to_arrays(images: Sequence[TraceImage]) -> dict[str, np.ndarray]:
    """What a file holds of images."""
    views = {
        f"image_{number}_view_{depth}": np.ascontiguousarray(view)
        for number, image in enumerate(images)
        for depth, view in enumerate(image.views)
    }
    pictures = {
        f"image_{number}_picture": np.frombuffer(image.picture, dtype=np.uint8) for number, image in enumerate(images)
    }
    return {**views, **pictures}


def take_images(header: MutableMapping[str, Any], arrays: MutableMapping[str, np.ndarray]) -> tuple[TraceImage, ...]:
    """The images of a file, taken out of its header and its arrays."""
    noted: Sequence[Mapping[str, Any]] = header.pop("images", ())
    return tuple(
        TraceImage(
            views=tuple(arrays.pop(f"image_{number}_view_{depth}") for depth in range(note["views"])),
            placed=note["placed"],
            picture=arrays.pop(f"image_{number}_picture").tobytes(),
        )
        for number, note in enumerate(noted)
    )


def image_fault(images: Sequence[TraceImage], prompt: int) -> bool:
    """Whether these cannot be images of a prompt of so many tokens: a patch is one token, and no two share one."""
    for image in images:
        if image.placed not in (True, False) or not image.views or (not image.placed and len(image.views) > 1):
            return True
        if any(view.ndim != 2 or not view.size or view.dtype.kind not in "iu" for view in image.views):
            return True
        if image.picture[:4] != b"RIFF" or image.picture[8:12] != b"WEBP":
            return True
    tokens = np.concatenate([image.tokens for image in images]) if images else np.zeros(0, dtype=np.int64)
    return len(np.unique(tokens)) < len(tokens) or bool(((tokens < 0) | (tokens >= prompt)).any())
