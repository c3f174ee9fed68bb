"""A rollout as tokens, and where question, response, answer and steps stand among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flowtracer.errors import InputError, TraceError
from flowtracer.model.forward import context_length
from flowtracer.shapes import ndarray
from flowtracer.text.answer import Answer, AnswerPattern, Miss, locate_answer
from flowtracer.text.encoding import EncodedText, encode_rollout, encode_sampled
from flowtracer.text.messages import Messages, images_of, parts_of
from flowtracer.text.offsets import tokens_overlapping
from flowtracer.text.span import CharSpan, Span
from flowtracer.text.steps import split_steps
from flowtracer.trace.images import TraceImage
from flowtracer.trace.trace import Rollout
from flowtracer.tracing.shown import Shown, encode_shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One rollout, ready to be traced."""

    rollout: Rollout
    text: EncodedText
    question: Span
    """Where the flow starts."""
    response: Span
    answer: Span
    """Tokens that overlap the answer's own characters."""
    sink: Span
    """Where the flow ends: the answer, or the positions that predict it."""
    found: Answer
    shown: Shown | None = None
    """The images of the prompt; None of text alone."""

    @property
    def images(self) -> tuple[TraceImage, ...]:
        """Their patches among its tokens."""
        return () if self.shown is None else self.shown.images

    @property
    def needed(self) -> int:
        """Tokens up to the last that the flow ends in; what follows cannot carry flow. A forward takes at least two."""
        return max(self.sink.stop, 2)

    def step_spans(self) -> list[Span]:
        """Tokens of the prompt, then of each step of the response; a token belongs where its first character does."""
        text, first = self.text, self.response.start
        steps = split_steps(text.text[text.response_start :])
        # Most tokenizers spell the space between two sentences with the word that begins the second.
        starts = [start + _leading_spaces(text.text[start:stop]) for start, stop in text.offsets[first:]]
        ends = np.searchsorted(starts, [step.stop + text.response_start for step in steps])
        bounds = [0, first, *(first + ends)]
        bounds[-1] = len(text.token_ids)
        return [Span(start=int(a), stop=int(b)) for a, b in pairwise(bounds) if b > a]


def prepare_rollout(
    model: Any,
    tokenizer: Any,
    rollout: Rollout,
    *,
    at: str,
    question: str,
    processor: Any = None,
    pattern: AnswerPattern | None = None,
) -> Encoded:
    """Encode a rollout and locate its parts.

    Args:
        model: What it is encoded for.
        tokenizer: The model's.
        rollout: Its text, or the very tokens that were sampled.
        at: Where the flow ends, "token" or "prediction".
        question: Where the flow starts, "prompt" or "user".
        processor: The model's, where it takes images.
        pattern: How responses state their answer; None for the usual ways.

    Raises:
        TraceError: This rollout cannot be traced; `.reason` names why.
        InputError: `question="user"` and a prompt that is no list of messages.
    """
    shown = None
    if images_of(rollout.prompt):
        text, shown = encode_shown(model, tokenizer, processor, rollout)
    elif rollout.token_ids is None:
        text = encode_rollout(tokenizer, rollout.prompt, rollout.response, processor=processor)
    else:
        text = encode_sampled(tokenizer, *rollout.token_ids)
    shift, first = text.response_start, text.first_response_token
    found = locate_answer(text.text[shift : text.response_stop], rollout.answer, pattern)
    if isinstance(found, Miss):
        raise TraceError(found.value, found.message)
    answer = _token_span(text.offsets, CharSpan(start=found.span.start + shift, stop=found.span.stop + shift))
    sink = answer if at == "token" else Span(start=answer.start - 1, stop=answer.stop - 1)
    images = () if shown is None else shown.images
    asked = Span(start=0, stop=first) if question == "prompt" else _user_span(rollout.prompt, text, images)
    if not len(asked) or sink.start < 0:
        raise TraceError("empty_prompt", "expected a prompt of at least one token, got none; flow starts there")
    encoded = Encoded(
        rollout=rollout,
        text=text,
        question=asked,
        response=Span(start=first, stop=len(text.token_ids)),
        answer=answer,
        sink=sink,
        found=found,
        shown=shown,
    )
    limit = context_length(model)
    if limit is not None and encoded.needed > limit:
        raise TraceError(
            "too_long",
            f"expected at most {limit} tokens up to the answer, the model's context, got {encoded.needed}; "
            "shorten the prompt or the response",
        )
    return encoded


def _user_span(prompt: str | Messages, text: EncodedText, images: Sequence[TraceImage]) -> Span:
    """From the first to the last token of the last user message, images among them."""
    if isinstance(prompt, str):
        raise InputError('expected chat messages with question="user", got a prompt as text')
    place = next((n for n in range(len(prompt) - 1, -1, -1) if prompt[n]["role"] == "user"), len(prompt))
    before, message = images_of(prompt[:place]), prompt[place : place + 1]
    shown = images[len(before) : len(before) + len(images_of(message))]
    spans = [Span(start=int(image.tokens[0]), stop=int(image.tokens[-1]) + 1) for image in shown]
    stop = text.response_start
    for part in reversed([part for said in message for part in parts_of(said)]):
        if not (content := str(part.get("text") or "").strip()):
            continue
        start = text.text.rfind(content, 0, stop)
        if start < 0:
            spans = []
            break
        spans.append(_token_span(text.offsets, CharSpan(start=start, stop=start + len(content))))
        stop = start
    if not spans:
        raise TraceError("no_user_message", "expected a user message within the prompt's text, got none")
    return Span(start=min(span.start for span in spans), stop=max(span.stop for span in spans))


def _leading_spaces(piece: str) -> int:
    """Spaces before the first other character; none in a piece of spaces alone."""
    bare = piece.lstrip(" ")
    return len(piece) - len(bare) if bare else 0


def _token_span(offsets: ndarray, span: CharSpan) -> Span:
    found = tokens_overlapping([(int(a), int(b)) for a, b in offsets], span)
    if found is None:
        raise TraceError(
            "answer_not_tokenized",
            "expected tokens that spell the answer, got none: the tokenizer drops its characters",
        )
    return Span(start=found.start, stop=found.stop)
