"""Pictures that prompts show: where records may name them, what tells them apart, and a small copy for a page.

1. A record names a picture by a path relative to its own file, and never one outside of that file's folder: whoever
   traces a file of another's making must not find pictures of his own in the page. What a caller passes himself may lie
   anywhere.
2. A picture is upright and in three colours, as transformers loads it. No format runs a program.
3. What tells two pictures apart is the content of their files, or their pixels.
"""

from __future__ import annotations

import hashlib
import io
import reprlib
from pathlib import Path
from typing import Any

from flowtracer.errors import InputError, MissingDependencyError, TraceError
from flowtracer.folders import digest

LONGEST_SIDE = 512
"""Pixels of a small copy."""
MOST_BYTES = 50_000
"""Of a small copy."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_QUALITIES = (85, 60, 30)


def located(image: Any, folder: Path | None) -> str:
    """The path of a picture that a record names.

    Args:
        image: What the record says.
        folder: Where its file lies; None where there is no file.

    Raises:
        InputError: No path, no such file, or one outside of the folder.
    """
    if not isinstance(image, str):
        raise InputError(f"expected an image as the path of its file, got {reprlib.repr(image)}; write it to a file")
    if folder is None:
        raise InputError("expected records of a file beside their images, got records of a data set; write both out")
    try:
        path = (folder / image).resolve()
        inside = not Path(image).is_absolute() and path.is_relative_to(folder.resolve())
        found = inside and path.is_file()
    except (OSError, ValueError):  # a name too long, or one with a null in it
        inside, found = True, False
    if not inside:
        raise InputError(
            f"expected an image within the folder of the records, by a path relative to it, got {reprlib.repr(image)}; "
            "move it there, or pass the rollout from Python"
        )
    if not found:
        raise InputError(f"expected an image's file beside the records, got {reprlib.repr(image)}, which is none")
    return str(path)


def content_digest(image: Any) -> str:
    """What tells a picture from another."""
    if isinstance(image, str | Path):
        try:
            return hashlib.sha256(Path(image).read_bytes()).hexdigest()
        except (OSError, ValueError):  # that it cannot be read is said where it is opened
            return digest(str(image))
    if hasattr(image, "tobytes"):
        return digest(image.mode, list(image.size), hashlib.sha256(image.tobytes()).hexdigest())
    return digest(type(image).__name__)


def open_picture(image: Any) -> Any:
    """A picture as a model's processor takes it, from a PIL picture or a path.

    Raises:
        TraceError: No picture.
        MissingDependencyError: pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingDependencyError("expected pillow to read an image, got none: pip install pillow") from error
    if not isinstance(image, Image.Image | str | Path):
        raise TraceError(
            "bad_image",
            f"expected an image as a PIL picture or a path, got {reprlib.repr(image)}; open it first",
        )
    try:
        if isinstance(image, Image.Image):
            return ImageOps.exif_transpose(image).convert("RGB")
        with Image.open(image, formats=_FORMATS) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # lengths and kinds are whatever the file's bytes say, and so is what trips over them
        raise TraceError(
            "bad_image", f"expected a picture ({', '.join(_FORMATS)}), got {str(image)!r}: {error}; write it anew"
        ) from error


def small_copy(picture: Any) -> bytes:
    """A picture as WebP of at most `MOST_BYTES`."""
    copy = picture.copy()
    side = LONGEST_SIDE
    while True:
        copy.thumbnail((side, side))
        for quality in _QUALITIES:
            file = io.BytesIO()
            copy.save(file, "WEBP", quality=quality)
            if file.tell() <= MOST_BYTES:
                return file.getvalue()
        side //= 2
