"""A trace in units that a person has names for: its tokens grouped into words, or into steps.

1. The answer's cue (`flowtracer.text.cue`), the answer, and the positions that predict it are one unit: the answer.
2. At the level of words a patch of an image is a unit, and the rest of each step is grouped as `flowtracer.text.words`
   says: words, numbers, operators, and what closes the step.
3. At the level of steps the rest of each step is one unit, and so is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from flowtracer.errors import InputError
from flowtracer.shapes import Int, ndarray
from flowtracer.text.cue import cue_of
from flowtracer.text.printable import one_line
from flowtracer.text.span import CharSpan, Span
from flowtracer.text.words import group_tokens, split_words
from flowtracer.trace.images import frame_marks, image_marks, patch_labels

if TYPE_CHECKING:
    from flowtracer.trace.trace import Trace

LEVELS = ("tokens", "words", "steps")
_WORD_LENGTH, _STEP_LENGTH = 20, 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Consecutive tokens that go by one name."""

    span: Span
    kind: str
    """"token"; "word", "number", "operator" or "end", which closes a step; "patch" of an image; "step" or "prompt";
    "answer"."""
    label: str
    """What stands there, in printable characters; long text is cut."""
    step: int
    """The step that it is in; 0 is the prompt."""

    @property
    def name(self) -> str:
        """How a sentence speaks of it."""
        if self.kind in ("prompt", "end", "patch"):
            return self.label
        quoted = f"“{self.label}”"
        return f"step {self.step} {quoted}" if self.kind == "step" else quoted

    @property
    def told(self) -> str:
        """Its name, with the step that it is in where the name does not say it."""
        if self.kind in ("step", "prompt", "end", "patch", "answer"):
            return self.name
        return f"{self.name} ({f'step {self.step}' if self.step else 'prompt'})"


def units(trace: Trace, level: str) -> list[Unit]:
    """The units of a trace; they tile its tokens.

    Raises:
        InputError: No such level.
    """
    if level not in LEVELS:
        raise InputError(f"expected a level among {list(LEVELS)}, got {level!r}")
    return list({"tokens": _tokens, "words": _words, "steps": _steps}[level](trace))


def answer_span(trace: Trace) -> Span:
    """The answer with what announces it: its cue, and the positions that predict it where the flow ends there."""
    starts = trace.offsets[:, 0]
    first, last = int(starts[trace.answer.start]), int(trace.offsets[trace.answer.stop - 1, 1])
    # The first token of an answer may hold what opens it.
    own = first + max(0, trace.text[first:last].find(trace.answer_text))
    cue = cue_of(trace.text, CharSpan(start=own, stop=last))
    begun = max(int(np.searchsorted(starts, cue.start)), trace.response.start)
    return Span(start=min(begun, trace.answer.start, trace.sink.start), stop=trace.answer.stop)


def _tokens(trace: Trace) -> Iterator[Unit]:
    patches = patch_labels(trace.images)
    for step, span in enumerate(trace.step_spans):
        for token in span:
            label = patches.get(token) or trace.label(token)
            yield Unit(span=Span(start=token, stop=token + 1), kind=_kind(token, patches), label=label, step=step)


def _kind(token: int, patches: Mapping[int, str]) -> str:
    return "patch" if token in patches else "token"


def _words(trace: Trace) -> Iterator[Unit]:
    found = split_words(trace.text)
    offsets = [(int(start), int(stop)) for start, stop in trace.offsets]
    patches, images_T = patch_labels(trace.images), image_marks(trace.images, len(trace))
    frames_T = frame_marks(images_T, trace.tokens)
    for step, part, whole in _parts(trace):
        if whole is not None:
            yield whole
            continue
        for image, framed, span in _runs(part, images_T, frames_T):
            if image:
                for token in span:
                    one = Span(start=token, stop=token + 1)
                    yield Unit(span=one, kind="patch", label=patches[token], step=step)
                continue
            if framed:
                yield Unit(span=span, kind="end", label=f"edge of image {framed}", step=step)
                continue
            for group in group_tokens(trace.text, found, offsets, span):
                label = one_line(trace.text[group.word.start : group.word.stop], _WORD_LENGTH)
                if group.kind == "end":
                    label = f"end of step {step}" if step else _prompt_mark(group.span, part)
                yield Unit(span=group.span, kind=group.kind, label=label, step=step)


def _runs(part: Span, images_T: Int[ndarray, " T"], frames_T: Int[ndarray, " T"]) -> Iterator[tuple[int, int, Span]]:
    """Tokens of an image, those that frame one, and text, run by run: the numbers of the two images, 0 for none."""
    start = part.start
    for (image, framed), run in groupby(zip(images_T[start : part.stop], frames_T[start : part.stop], strict=True)):
        stop = start + len(list(run))
        yield int(image), int(framed), Span(start=start, stop=stop)
        start = stop


def _prompt_mark(mark: Span, prompt: Span) -> str:
    if mark.stop == prompt.stop:
        return "end of the prompt"
    return "start of the prompt" if mark.start == prompt.start else "end of a line of the prompt"


def _steps(trace: Trace) -> Iterator[Unit]:
    for step, part, whole in _parts(trace):
        label = one_line(trace.slice_text(part), _STEP_LENGTH)
        kind = "step" if step else "prompt"
        yield whole or Unit(span=part, kind=kind, label=label if step else "the prompt", step=step)


def _parts(trace: Trace) -> Iterator[tuple[int, Span, Unit | None]]:
    """The steps without the answer; in its place the answer, as a unit of its own."""
    answer = answer_span(trace)
    told = False
    for step, span in enumerate(trace.step_spans):
        if span.start < answer.start:
            yield step, Span(start=span.start, stop=min(span.stop, answer.start)), None
        if not told and span.stop > answer.start:
            told = True
            label = one_line(trace.answer_text, _WORD_LENGTH)
            yield step, answer, Unit(span=answer, kind="answer", label=label, step=step)
        if span.stop > answer.stop:
            yield step, Span(start=max(span.start, answer.stop), stop=span.stop), None
