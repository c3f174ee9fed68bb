"""A rollout as tokens, and where question, response, answer and steps stand among them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from flowtracer.errors import InputError, TraceError
from flowtracer.shapes import ndarray
from flowtracer.text.answer import Answer, AnswerPattern, Miss, locate_answer
from flowtracer.text.encoding import EncodedText, Messages, encode_rollout, encode_sampled
from flowtracer.text.offsets import tokens_overlapping
from flowtracer.text.span import CharSpan, Span
from flowtracer.text.steps import split_steps
from flowtracer.trace.trace import Rollout


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
    tokenizer: Any,
    rollout: Rollout,
    *,
    at: str,
    question: str,
    limit: int | None,
    pattern: AnswerPattern | None = None,
) -> Encoded:
    """Encode a rollout and locate its parts.

    Args:
        tokenizer: The model's.
        rollout: Its text, or the very tokens that were sampled.
        at: Where the flow ends, "token" or "prediction".
        question: Where the flow starts, "prompt" or "user".
        limit: Tokens that the model takes; None for no limit.
        pattern: How responses state their answer; None for the usual ways.

    Raises:
        TraceError: This rollout cannot be traced; `.reason` names why.
        InputError: `question="user"` and a prompt that is no list of messages.
    """
    if rollout.token_ids is None:
        text = encode_rollout(tokenizer, rollout.prompt, rollout.response)
    else:
        text = encode_sampled(tokenizer, *rollout.token_ids)
    shift, first = text.response_start, text.first_response_token
    found = locate_answer(text.text[shift : text.response_stop], rollout.answer, pattern)
    if isinstance(found, Miss):
        raise TraceError(found.value, found.message)
    answer = _token_span(text.offsets, CharSpan(start=found.span.start + shift, stop=found.span.stop + shift))
    sink = answer if at == "token" else Span(start=answer.start - 1, stop=answer.stop - 1)
    asked = Span(start=0, stop=first) if question == "prompt" else _user_span(rollout.prompt, text)
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
    )
    if limit is not None and encoded.needed > limit:
        raise TraceError(
            "too_long",
            f"expected at most {limit} tokens up to the answer, the model's context, got {encoded.needed}; "
            "shorten the prompt or the response",
        )
    return encoded


def _user_span(prompt: str | Messages, text: EncodedText) -> Span:
    if isinstance(prompt, str):
        raise InputError('expected chat messages with question="user", got a prompt as text')
    content = next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "").strip()
    start = text.text.rfind(content, 0, text.response_start) if content else -1
    if start < 0:
        raise TraceError("no_user_message", "expected a user message within the prompt's text, got none")
    return _token_span(text.offsets, CharSpan(start=start, stop=start + len(content)))


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
