r"""Where the answer stands among the very tokens that were sampled, and which tokens led up to it.

1. Decode the response without its end-of-text tokens, with the characters that each token spells.
2. Locate the final answer, or, with `target="box"`, the inside of the first complete `\boxed{}`.
3. The answer's tokens overlap its characters, the whole's those of what opens it and of a box's closing brace too; the
   reasoning is what stands before the token that opens it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from flowtracer.credit.signals import AnswerSignals
from flowtracer.signals.sampled import Sampled
from flowtracer.text.answer import AnswerPattern, Miss, first_box, locate_answer, opening_of
from flowtracer.text.encoding import without_end
from flowtracer.text.offsets import token_offsets, tokens_overlapping
from flowtracer.text.span import CharSpan, Span


def locate_answers(
    tokenizer: Any, sampled: Sampled, target: str = "answer", pattern: AnswerPattern | None = None
) -> tuple[AnswerSignals, Counter[str]]:
    """The answers of a batch, and why the other responses have none, by named reason."""
    answer_BR = torch.zeros(sampled.response_ids_BR.shape, dtype=torch.bool)
    whole_BR, reasoning_BR = torch.zeros_like(answer_BR), torch.zeros_like(answer_BR)
    misses: Counter[str] = Counter()
    for row, (ids, length) in enumerate(zip(sampled.response_ids_BR.tolist(), sampled.lengths(), strict=True)):
        spans = answer_in_response(tokenizer, ids[:length], target, pattern)
        if isinstance(spans, Miss):
            misses[spans.value] += 1
        else:
            whole, answer = spans
            answer_BR[row, answer.start : answer.stop] = True
            whole_BR[row, whole.start : whole.stop] = True
            reasoning_BR[row, : whole.start] = True
    answer_BR, whole_BR, reasoning_BR = (marks.to(sampled.device) for marks in (answer_BR, whole_BR, reasoning_BR))
    return AnswerSignals(answer_BR=answer_BR, whole_BR=whole_BR, reasoning_BR=reasoning_BR), misses


def answer_in_response(
    tokenizer: Any, response_ids: Sequence[int], target: str = "answer", pattern: AnswerPattern | None = None
) -> tuple[Span, Span] | Miss:
    """Tokens of the answer with what opens and closes it, and of the answer alone."""
    ids = without_end(tokenizer, response_ids)
    text, offsets = token_offsets(tokenizer, ids)
    found = locate_answer(text, pattern=pattern) if target == "answer" else first_box(text)
    if isinstance(found, Miss):
        return found
    answer = tokens_overlapping(offsets, found.span)
    closing = found.span.stop + (target == "box")  # the brace, which stands right behind what it closes
    whole = tokens_overlapping(offsets, CharSpan(start=opening_of(text, found.span), stop=closing))
    if answer is None or whole is None:
        return Miss.NO_ANSWER
    return Span(start=whole.start, stop=whole.stop), Span(start=answer.start, stop=answer.stop)
