"""Two responses to one prompt side by side: where they part, and which hubs they share. `group.py` has more of them.

1. The *shared prefix* is the longest run of leading tokens with the same text; a step is shared if it lies there whole.
2. The *divergence* is the first token after it.
3. *Hubs* are matched on the shared prefix by position. Beyond it positions mean nothing, so a hub of A is the hub of B
   with the same word and the same kind, the first free one in reading order. What has no match is lost (A only) or
   new (B only).
4. *Throughput* is compared token by token on the shared prefix: what the continuation makes of the same tokens.
5. *Steps* after the prefix are aligned in order (`alignment.py`).

Numpy only: saved traces can be compared without torch and without the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowtracer.errors import InputError
from flowtracer.shapes import Float, Int, ndarray
from flowtracer.text.printable import printable
from flowtracer.trace.alignment import StepPair, align_steps, step_words
from flowtracer.trace.measures import identity, step_of, verdict
from flowtracer.trace.trace import Trace
from flowtracer.trace.unit_flow import Hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where two responses part."""

    token: int
    """Position of the first token that differs, the same in both."""
    step_a: int | None
    """Step of A that it stands in; None where A has ended."""
    step_b: int | None
    label_a: str | None
    """The token as a reader knows it; None where A has ended."""
    label_b: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two traces share and where they differ."""

    a: Trace
    b: Trace
    shared_tokens: int
    """Leading tokens with the same text."""
    shared_steps: int
    """Leading steps that lie wholly on the shared prefix; the prompt is one."""
    divergence: Divergence | None
    """None where the two say the same to the end."""
    hubs_kept: tuple[tuple[Hub, Hub], ...]
    """A's hub and the hub of B that it is."""
    hubs_lost: tuple[Hub, ...]
    """Hubs of A that are none in B."""
    hubs_new: tuple[Hub, ...]
    """Hubs of B that were none in A."""
    throughput_difference: Float[ndarray, " N"]
    """Throughput in B less that in A, of each token of the shared prefix."""
    steps: tuple[StepPair, ...]
    """Steps after the shared ones, in reading order."""

    def summary(self) -> str:
        """One sentence: where they part, what became of the hubs, and the two answers."""
        hubs = len(self.hubs_kept) + len(self.hubs_lost)
        fate = f"of {counted(hubs, 'hub')} {len(self.hubs_kept)} {'is' if len(self.hubs_kept) == 1 else 'are'} kept"
        fate += f", {len(self.hubs_lost)} lost, {len(self.hubs_new)} new"
        return f"{self._parting()}; {fate}; the answers are {told_answer(self.a)} and {told_answer(self.b)}."

    def _parting(self) -> str:
        if self.divergence is None:
            return f"Both say the same {counted(self.shared_tokens, 'token')}"
        labels = [
            "the end" if label is None else f"“{label}”" for label in (self.divergence.label_a, self.divergence.label_b)
        ]
        steps = max(self.shared_steps - 1, 0)
        shared = counted(self.shared_tokens, "token") + (
            f" ({counted(steps, 'step')} of the response)" if steps else ""
        )
        return f"They share {shared} and part at {labels[0]} against {labels[1]}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the two traces, which are named, as plain lists, numbers and strings, ready for JSON."""
        return {
            "summary": self.summary(),
            "a": identity(self.a),
            "b": identity(self.b),
            "shared_tokens": self.shared_tokens,
            "shared_steps": self.shared_steps,
            "divergence": None if self.divergence is None else asdict(self.divergence),
            "hubs_kept": [{"a": a.to_dict(), "b": b.to_dict()} for a, b in self.hubs_kept],
            "hubs_lost": [hub.to_dict() for hub in self.hubs_lost],
            "hubs_new": [hub.to_dict() for hub in self.hubs_new],
            "throughput_difference": self.throughput_difference.tolist(),
            "steps": [asdict(pair) for pair in self.steps],
        }


def compare(a: Trace, b: Trace, *, hubs: int = 5) -> Comparison:
    """What two responses to one prompt share, and where they differ.

    Args:
        a: The one that things are lost from.
        b: The one that things are new in.
        hubs: How many hubs of each are compared.

    Raises:
        InputError: Traces of different prompts.
    """
    shared = shared_prefix(a, b)
    refuse_strangers((a, b), [len(a), shared])
    spans = zip(a.step_spans, b.step_spans, strict=False)
    shared_steps = sum(
        1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1] and pair[0].stop <= shared, spans)
    )
    kept, lost, new = _match_hubs(a.hubs(hubs), b.hubs(hubs), shared)
    return Comparison(
        a=a,
        b=b,
        shared_tokens=shared,
        shared_steps=shared_steps,
        divergence=_divergence(a, b, shared),
        hubs_kept=kept,
        hubs_lost=lost,
        hubs_new=new,
        throughput_difference=b.throughput[:shared] - a.throughput[:shared],
        steps=align_steps(step_words(a, shared_steps), step_words(b, shared_steps), shared_steps),
    )


def refuse_strangers(traces: Sequence[Trace], shared: Sequence[int] | Int[ndarray, " G"]) -> None:
    """Raise unless all have the first's prompt, with which they share so many tokens.

    Raises:
        InputError: Names those of other prompts.
    """
    prompt = traces[0].response.start
    pairs = enumerate(zip(traces, shared, strict=True))
    strangers = [i for i, (trace, tokens) in pairs if trace.response.start != prompt or tokens < prompt]
    if strangers:
        names = [identity(traces[i])["id"] for i in strangers]
        raise InputError(f"expected responses to one prompt, got other prompts than the first's in {names}")


def shared_prefix(a: Trace, b: Trace) -> int:
    """Leading tokens with the same text; those of other pictures are others."""
    pairs = zip(_read(a), _read(b), strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _read(trace: Trace) -> list[tuple[str, bytes | None]]:
    """What the model read at each token: its text, and of an image the picture."""
    pictures = {int(token): image.picture for image in trace.images for token in image.tokens}
    return [(text, pictures.get(token)) for token, text in enumerate(trace.tokens)]


def _divergence(a: Trace, b: Trace, shared: int) -> Divergence | None:
    if shared == len(a) == len(b):
        return None
    step_a, step_b = (step_of(trace, shared) if shared < len(trace) else None for trace in (a, b))
    label_a, label_b = (trace.label(shared) if shared < len(trace) else None for trace in (a, b))
    return Divergence(token=shared, step_a=step_a, step_b=step_b, label_a=label_a, label_b=label_b)


def _match_hubs(
    hubs_a: Sequence[Hub], hubs_b: Sequence[Hub], shared: int
) -> tuple[tuple[tuple[Hub, Hub], ...], tuple[Hub, ...], tuple[Hub, ...]]:
    """Hubs kept, lost and new, each in the order of A's or B's hubs."""

    def key(hub: Hub) -> object:
        return hub.unit.span.start if hub.unit.span.stop <= shared else (hub.label, hub.kind)

    free: dict[object, list[Hub]] = {}
    for hub in sorted(hubs_b, key=lambda hub: hub.token):
        free.setdefault(key(hub), []).append(hub)
    match: dict[int, Hub] = {}
    for hub in sorted(hubs_a, key=lambda hub: hub.token):
        if candidates := free.get(key(hub)):
            match[hub.token] = candidates.pop(0)
    kept = tuple((hub, match[hub.token]) for hub in hubs_a if hub.token in match)
    taken = {hub.token for hub in match.values()}
    return kept, tuple(h for h in hubs_a if h.token not in match), tuple(h for h in hubs_b if h.token not in taken)


def told_answer(trace: Trace) -> str:
    """The answer, with whether it is right where that is known."""
    graded = verdict(trace)
    return printable(trace.answer_text) + (f" ({graded})" if graded else "")


def counted(number: int, what: str) -> str:
    """As in "1 token" and "2,000 tokens"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
