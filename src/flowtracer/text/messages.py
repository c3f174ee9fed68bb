"""Chat messages, and the images that they show.

What a message says is text, or parts in the form of transformers and TRL: `{"type": "text", "text": ...}`, and
`{"type": "image", "image": ...}` with a PIL picture or the path of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]


def as_messages(prompt: str | Messages) -> list[dict[str, Any]]:
    """A prompt as messages; text is one of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(message) for message in prompt]


def parts_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a message says, in parts; text is one."""
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or () if isinstance(part, Mapping)]


def images_of(prompt: str | Messages) -> list[Any]:
    """What a prompt shows, in its order: pictures, or their paths."""
    messages: Messages = () if isinstance(prompt, str) else prompt
    return [_image(part) for message in messages for part in parts_of(message) if part.get("type") == "image"]


def with_images(messages: Messages, change: Callable[[Any], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same messages, each image part with what `change` makes of its image; messages without are as they were."""
    changed = []
    for message in messages:
        parts = [
            {"type": "image", **change(_image(part))} if part.get("type") == "image" else part
            for part in parts_of(message)
        ]
        shows = any(part.get("type") == "image" for part in parts)
        changed.append({**message, "content": parts} if shows else dict(message))
    return changed


def _image(part: Mapping[str, Any]) -> Any:
    """A file may stand under either name, as transformers has it."""
    return part.get("image", part.get("path"))
