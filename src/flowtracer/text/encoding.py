"""Prompt and response as tokens of one text, with the characters that each token spells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.errors import InputError, TraceError
from flowtracer.shapes import ndarray
from flowtracer.text.messages import Messages, images_of, parts_of, with_images
from flowtracer.text.offsets import token_offsets


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedText:
    """Prompt and response as tokens with exact offsets."""

    text: str
    token_ids: ndarray
    offsets: ndarray
    response_start: int
    """First character of the response."""
    response_stop: int
    """Where its text ends; a mark of the end may follow."""

    @property
    def first_response_token(self) -> int:
        """The first token that spells a character of the response; the number of tokens where none does."""
        return int(np.append(self.offsets[:, 1] > self.response_start, True).argmax())


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: JSON may carry lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def prompt_text(
    tokenizer: Any, prompt: str | Messages, template_options: Mapping[str, Any] | None = None
) -> tuple[str, bool]:
    """A prompt as the one text that a model reads, and whether a chat template made it.

    Where the last message is the assistant's, the response goes on with it. Images become what the template writes for
    them. Instead of a tokenizer its processor may bring the template, which then gets messages in parts.

    Raises:
        InputError: Messages, and a tokenizer without a chat template.
        TraceError: Messages that the template does not take.
    """
    if isinstance(prompt, str):
        return prompt, False
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "expected a prompt as text, got chat messages, and the tokenizer has no chat template; "
            "pass the text that the model was given, or take an instruction-tuned model"
        )
    from jinja2 import TemplateError

    messages = with_images(prompt, lambda image: {})
    if hasattr(tokenizer, "image_processor"):
        messages = [{**message, "content": parts_of(message)} for message in messages]
    continues = bool(messages) and messages[-1].get("role") == "assistant"
    options = {"add_generation_prompt": not continues, "continue_final_message": continues, **(template_options or {})}
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except TemplateError as error:
        message = f"expected messages that the model's chat template takes, got {error}; see which roles it allows"
        raise TraceError("bad_messages", message) from error
    return text, True


def encode_prompt(
    tokenizer: Any, prompt: str | Messages, template_options: Mapping[str, Any] | None = None, *, opening: str = ""
) -> list[int]:
    """Token ids of a prompt, as a model gets them that is to respond; a template brings its own special tokens.

    With `opening`, also of what the response is made to begin with.

    Raises:
        InputError: Messages, and a tokenizer without a chat template.
        TraceError: Messages that the template does not take, or that show an image.
    """
    _refuse_images(prompt)
    text, templated = prompt_text(tokenizer, prompt, template_options)
    return list(tokenizer(text + opening, add_special_tokens=not templated)["input_ids"])


def encode_rollout(tokenizer: Any, prompt: str | Messages, response: str, *, processor: Any = None) -> EncodedText:
    """Prompt and response as the tokens of one text.

    Args:
        tokenizer: The model's.
        prompt: Text, or messages that show no image.
        response: What was answered.
        processor: Of a model that takes images; its template is the model's.

    Raises:
        InputError: Messages, and a tokenizer without a chat template.
        TraceError: Messages that the template does not take, or that show an image, or text that is not Unicode.
    """
    _refuse_images(prompt)
    asked, templated = prompt_text(with_template(tokenizer, processor), prompt)
    refuse_ill_formed(asked + response)
    return encode_text(tokenizer, asked, response, special_tokens=not templated)


def with_template(tokenizer: Any, processor: Any = None) -> Any:
    """Whichever of the two brings the model's chat template."""
    return processor if getattr(processor, "chat_template", None) else tokenizer


def refuse_ill_formed(text: str) -> None:
    """Raise where a text is not Unicode.

    Raises:
        TraceError: No tokenizer takes it.
    """
    if not is_unicode(text):
        raise TraceError(
            "invalid_unicode",
            "expected text in Unicode, got half of a surrogate pair, which no tokenizer takes; repair the text",
        )


def _refuse_images(prompt: str | Messages) -> None:
    if images_of(prompt):
        raise TraceError(
            "image_in_prompt",
            "expected a prompt in text, got an image, which is not read here: traces and credit in training are what "
            "images are read for; leave them out",
        )


def encode_text(tokenizer: Any, prompt: str, response: str, *, special_tokens: bool = True) -> EncodedText:
    """Tokenize prompt and response together, as the one text that a model reads.

    A token that straddles the border belongs to the response. Tokenizers without offsets encode the two apart, and
    offsets are then those of the decoded text.
    """
    if tokenizer.is_fast:
        text = prompt + response
        encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special_tokens)
        ids, offsets, start = encoding["input_ids"], encoding["offset_mapping"], len(prompt)
    else:
        prompt_ids = tokenizer(prompt, add_special_tokens=special_tokens)["input_ids"]
        ids = [*prompt_ids, *tokenizer(response, add_special_tokens=False)["input_ids"]]
        text, offsets = token_offsets(tokenizer, ids)
        start = offsets[len(prompt_ids)][0] if len(prompt_ids) < len(ids) else len(text)
    return EncodedText(
        text=text,
        token_ids=np.array(ids, dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64).reshape(-1, 2),
        response_start=start,
        response_stop=len(text),
    )


def encode_sampled(tokenizer: Any, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> EncodedText:
    """The very tokens that a model read and sampled; special tokens that end a response are no place for an answer."""
    ids = [*prompt_ids, *response_ids]
    text, offsets = token_offsets(tokenizer, ids)
    said = len(prompt_ids) + len(without_end(tokenizer, response_ids))
    return EncodedText(
        text=text,
        token_ids=np.array(ids, dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64).reshape(-1, 2),
        response_start=offsets[len(prompt_ids)][0] if response_ids else len(text),
        response_stop=offsets[said][0] if said < len(ids) else len(text),
    )


def without_end(tokenizer: Any, response_ids: Sequence[int]) -> list[int]:
    """Tokens of a response without the special ones that end it, which are no part of its text."""
    special = set(tokenizer.all_special_ids)
    said = len(response_ids)
    while said and response_ids[said - 1] in special:
        said -= 1
    return list(response_ids[:said])
