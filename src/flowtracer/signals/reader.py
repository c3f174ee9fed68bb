"""Signals of sampled responses: only here is it chosen what a credit strategy's needs make the model compute.

1. A trainer may be about to run the policy over the very sequences, for log-probabilities of its own: inside `riding`
   that pass is listened to, and gives attention, log-probabilities and entropies for nothing.
2. Generation by the policy itself is such a pass too, of many steps: inside `hearing` it gives attention.
3. `read` computes what is still missing. Forwards are shared where needs allow it: the answer is located once, and
   log-probabilities serve gain and entropy.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flowtracer.credit import Credit, needs_of, reads_of
from flowtracer.credit.signals import (
    OF_IMAGES,
    AlignmentSignals,
    AnswerSignals,
    BlackenedSignals,
    GainSignals,
    GoldSignals,
    GradientSignals,
    LogitSignals,
    NoisySignals,
    OutputSignals,
    PerturbationSignals,
    Readings,
    VisualSignals,
)
from flowtracer.errors import InputError
from flowtracer.model.capture import AttentionReader
from flowtracer.model.contributions import ContributionReader, layer_reader
from flowtracer.model.forward import image_token_of
from flowtracer.model.logits import LogitReader
from flowtracer.signals.alignment import ResponseAligner
from flowtracer.signals.answers import locate_answers
from flowtracer.signals.generated import GENERATION_BYTES, Generated, GenerationReader, fill
from flowtracer.signals.gold import PrefixScorer, read_gain
from flowtracer.signals.gradients import read_influence, read_saliency
from flowtracer.signals.heads import PendingAttention, PendingHeads, spread_reader
from flowtracer.signals.logits import output_gradients, token_logits
from flowtracer.signals.packed import Place
from flowtracer.signals.passes import Pending, ride, rides_truly, run_forwards
from flowtracer.signals.sampled import Sampled
from flowtracer.signals.throughput import PendingFlow
from flowtracer.signals.visual import blackened, noisy, read_changed, read_divergence, shown_in
from flowtracer.text.answer import AnswerPattern, check_pattern

_OF_ANSWER = frozenset({"answer", "flow", "gradient", "perturbation"})
_OF_ATTENTION = frozenset({"flow", "attention", "heads"})
_OF_LOGITS = frozenset({"logits", "gain"})
_OF_PASSES = frozenset({"output", "alignment", "gradient", "perturbation", "gain", "gold"}) | OF_IMAGES
"""Needs that no pass over the sampled sequences alone can meet."""
_UNEVEN = frozenset({"alignment", "gradient", "perturbation", "gold"})
"""Needs whose number of forwards depends on the responses, or that run a backward pass of their own."""


def refuse_sharded(credit: Credit) -> None:
    """Raise where a strategy cannot run on a model that is sharded over processes.

    Raises:
        InputError: Processes would wait for each other for ever.
    """
    reads = reads_of(credit)
    if "flow" in reads.needs and reads.capacity != "attention":
        raise InputError(
            f"expected a model that every process holds whole, got one sharded by FSDP or ZeRO: capacity "
            f"{reads.capacity!r} reads output projections, of which each process has a part; use capacity 'attention'"
        )
    uneven = sorted(reads.needs & _UNEVEN)
    if uneven:
        raise InputError(
            f"expected a model that every process holds whole, got one sharded by FSDP or ZeRO: {', '.join(uneven)} "
            "takes another number of passes in each process; use DDP, or another credit"
        )


def refuse_blind(credit: Credit, model: Any) -> None:
    """Raise where a strategy compares images and the model takes none.

    Raises:
        InputError: A model of text alone.
    """
    visual = sorted(needs_of(credit) & OF_IMAGES)
    if visual and image_token_of(model) is None:
        raise InputError(
            f"expected a model of text and images, got {type(model).__name__}: {', '.join(visual)} is what images do "
            "to a response; use another credit"
        )


@dataclass(kw_only=True)
class Ride:
    """What a pass of the trainer's own has given of a batch."""

    answers: tuple[AnswerSignals, Counter[str]] | None = None
    """Where the responses answer, and why the others do not, by named reason."""
    waiting: Sequence[Pending] = ()
    """Signals of attention, as far as the pass has read them."""
    logits: LogitSignals | None = None
    """Entropies and log-probabilities, where the pass computed them."""


class SignalReader:
    """Computes what one credit strategy needs, and nothing else.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        credit: The strategy, which says what it reads.
        temperature: What logits are divided by: the policy as it samples.
        rows_per_forward: Sequences in one forward.
        every_rank_alike: Run the same number of whole forwards whatever was sampled, for a sharded model.
        template_options: What the trainer hands to the chat template.
        generation_bytes: Queries and keys that may be kept of one generation.
        black: What the model's processor makes of a black pixel, by channel; where images are blackened.
        answer_pattern: How responses state their answer; None for the usual ways.

    Raises:
        InputError: A need that does not exist, or one that cannot be met on a sharded model, on one of text alone, or
            without knowing what is black.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        credit: Credit,
        *,
        temperature: float = 1.0,
        rows_per_forward: int = 8,
        every_rank_alike: bool = False,
        template_options: Mapping[str, Any] | None = None,
        generation_bytes: int = GENERATION_BYTES,
        black: Sequence[float] | None = None,
        answer_pattern: AnswerPattern | None = None,
    ) -> None:
        check_pattern(answer_pattern)
        if every_rank_alike:
            refuse_sharded(credit)
        refuse_blind(credit, model)
        if "blackened" in needs_of(credit) and black is None:
            raise InputError("expected what black is to the model, got nothing: give its image processor's (black_of)")
        self._black = black
        self._pattern = answer_pattern
        self._reads = reads_of(credit)
        self.needs = needs_of(credit)
        self._model = model
        self._tokenizer = tokenizer
        self._temperature = temperature
        self._size = rows_per_forward
        self._alike = every_rank_alike
        self._template_options = template_options
        self._generation_bytes = generation_bytes
        self.own_forward = 0.0
        self.lost: str | None = None

    @cached_property
    def _middle(self) -> AttentionReader:
        return AttentionReader(self._model, self._reads.layers)

    @cached_property
    def _flow(self) -> AttentionReader | ContributionReader:
        """The reader of flow: that of attention, unless its capacity or graph is another."""
        capacity, graph = self._reads.capacity, self._reads.graph
        if (capacity, graph) == ("attention", "tokens"):
            return self._middle
        return layer_reader(self._model, self._reads.layers, capacity=capacity, graph=graph)

    @cached_property
    def _spread(self) -> AttentionReader:
        return spread_reader(self._model, self._reads.layers)

    @cached_property
    def _logits(self) -> LogitReader:
        return LogitReader(self._model)

    @cached_property
    def _readers(self) -> list[AttentionReader]:
        """Readers of all attention that other passes may give."""
        readers = [self._middle] if "attention" in self.needs else []
        if "flow" in self.needs and isinstance(self._flow, AttentionReader) and self._flow not in readers:
            readers.append(self._flow)
        return [*readers, self._spread] if "heads" in self.needs else readers

    @cached_property
    def _generation(self) -> GenerationReader:
        return GenerationReader(self._model, self._readers, self._generation_bytes)

    @cached_property
    def _rides_truly(self) -> bool:
        return all(rides_truly(self._model, reader) for reader in self._readers)

    @property
    def wants_logits(self) -> bool:
        """Whether entropies and log-probabilities of a pass are of use."""
        return bool(self.needs & _OF_LOGITS)

    @property
    def rides(self) -> bool:
        """Whether a pass of the trainer's own can give anything that is needed."""
        return self.wants_logits or (bool(self.needs & _OF_ATTENTION) and self._rides_truly)

    @contextlib.contextmanager
    def riding(self, sampled: Sampled, places: Sequence[Place] | None = None) -> Iterator[Ride]:
        """Listen to a pass of the policy over all of the sequences, in their order and with their padding.

        What it gave is handed to `read`, which runs the model only for the rest. The pass must use no gradients. With
        `places` it is one forward over sequences without padding, each at its place, in evaluation mode and with
        positions that count no padding.
        """
        ridden = Ride()
        if self.needs & _OF_ATTENTION and (places is not None or self._rides_truly):
            ridden.answers = self._locate(sampled)
            ridden.waiting = self._waiting(sampled, ridden.answers and ridden.answers[0])
        with ride(self._model, [pending for pending in ridden.waiting if pending.rides], places):
            yield ridden

    @contextlib.contextmanager
    def hearing(self) -> Iterator[Generated | None]:
        """Keep the attention that the model pays while it generates, where that is of use; it is handed to `read`."""
        # Sequences whose last token is needed take a forward of their own: another number of them in each process.
        if self._alike:
            yield None
            return
        with self._generation.hearing() as heard:
            yield heard

    def read(
        self,
        sampled: Sampled,
        seeds_B: tuple[int, ...],
        ridden: Ride | None = None,
        generated: Generated | None = None,
    ) -> tuple[Readings, Counter[str]]:
        """What was read, and why responses have no answer or no flow, by named reason.

        Afterwards `own_forward` is the share of the sequences that the model had to run over again, and `lost` says why
        attention could not be read off generation, where it could not (`flowtracer.signals.generated.LOST`).

        Raises:
            InputError: A layer that the model does not have, or a gold answer that nobody gave.
            CaptureError: The model's attention or logits cannot be read.
        """
        self.own_forward = float(bool(self.needs & _OF_PASSES))
        ridden = Ride() if ridden is None else ridden
        answer, misses = ridden.answers or self._locate(sampled) or (None, Counter[str]())
        misses = misses.copy()
        readings = Readings(answer=answer)
        if answer is not None:
            readings = self._of_gradients(readings, sampled, answer, seeds_B)
        waiting = ridden.waiting or self._waiting(sampled, answer)
        if generated is not None and not ridden.waiting:
            attention = self._generation.attention(sampled, generated)
            if attention is not None:
                fill([pending for pending in waiting if pending.rides], attention, rows_at_once=self._size)
        self.lost = self._generation.lost if waiting and not ridden.waiting else None
        missing = [p for p in waiting if len(p.missing) or (self._alike and not ridden.waiting)]
        ran = run_forwards(missing, rows_per_forward=self._size, every_rank_alike=self._alike)
        self.own_forward = max(self.own_forward, ran / len(sampled))
        for pending in waiting:
            readings = pending.add_to(readings)
        readings = self._of_images(readings, sampled, seeds_B)
        if answer is not None and readings.flow is not None:
            misses["no_flow"] = int(answer.answer_BR.any(-1).sum() - readings.flow.traced_B.sum())
        return self._of_logits(readings, sampled, ridden.logits), +misses

    def _locate(self, sampled: Sampled) -> tuple[AnswerSignals, Counter[str]] | None:
        if not self.needs & _OF_ANSWER:
            return None
        return locate_answers(self._tokenizer, sampled, self._reads.target, self._pattern)

    def _waiting(self, sampled: Sampled, answer: AnswerSignals | None) -> list[Pending]:
        """What attention is needed for."""
        waiting: list[Pending] = []
        if "flow" in self.needs and answer is not None:
            waiting.append(PendingFlow(self._flow, sampled, answer.answer_BR, self._reads))
        if "attention" in self.needs:
            waiting.append(PendingAttention(self._middle, sampled))
        if "heads" in self.needs:
            waiting.append(PendingHeads(self._spread, sampled))
        return waiting

    def _of_gradients(
        self, readings: Readings, sampled: Sampled, answer: AnswerSignals, seeds_B: tuple[int, ...]
    ) -> Readings:
        if "gradient" in self.needs:
            marked_BR = answer.whole_BR if self._reads.target == "box" else answer.answer_BR
            here_BR, before_BR = read_saliency(
                self._logits, sampled, marked_BR, temperature=self._temperature, rows_per_forward=self._size
            )
            readings = replace(readings, gradient=GradientSignals(saliency_BR=here_BR, saliency_before_BR=before_BR))
        if "perturbation" in self.needs:
            influence_BR = read_influence(
                self._logits, sampled, answer.answer_BR, answer.reasoning_BR, seeds_B, rows_per_forward=self._size
            )
            readings = replace(readings, perturbation=PerturbationSignals(influence_BR=influence_BR))
        return readings

    def _of_images(self, readings: Readings, sampled: Sampled, seeds_B: tuple[int, ...]) -> Readings:
        options: dict[str, Any] = {"temperature": self._temperature, "rows_per_forward": self._size}
        token = image_token_of(self._model)
        if "visual" in self.needs and token is not None:
            divergence_BR = read_divergence(self._logits, sampled, token, **options)
            visual = VisualSignals(divergence_BR=divergence_BR, shown_B=shown_in(sampled))
            readings = replace(readings, visual=visual)
        if "blackened" in self.needs and self._black is not None:
            log_prob_BR = read_changed(self._logits, sampled, blackened(self._black), seeds_B, **options)
            black = BlackenedSignals(blackened_log_prob_BR=log_prob_BR, shown_B=shown_in(sampled))
            readings = replace(readings, blackened=black)
        if "noisy" in self.needs:
            log_prob_BR = read_changed(self._logits, sampled, noisy, seeds_B, **options)
            readings = replace(readings, noisy=NoisySignals(noisy_log_prob_BR=log_prob_BR, shown_B=shown_in(sampled)))
        return readings

    def _of_logits(self, readings: Readings, sampled: Sampled, logits: LogitSignals | None) -> Readings:
        options: dict[str, Any] = {"temperature": self._temperature, "rows_per_forward": self._size}
        if self.needs & _OF_LOGITS:
            if logits is None:
                self.own_forward = 1.0
                entropy_BR, log_prob_BR = token_logits(self._logits, sampled, **options)
                logits = LogitSignals(entropy_BR=entropy_BR, log_prob_BR=log_prob_BR)
            readings = replace(readings, logits=logits)
        if "output" in self.needs:
            gradient_BRD = output_gradients(self._logits, sampled, **options)
            readings = replace(readings, output=OutputSignals(gradient_BRD=gradient_BRD))
        if "alignment" in self.needs:
            aligner = ResponseAligner(self._logits, sampled, **options)
            readings = replace(readings, alignment=AlignmentSignals(align=aligner))
        if "gain" in self.needs and logits is not None:
            gain_BR = read_gain(
                self._logits,
                self._tokenizer,
                sampled,
                logits.log_prob_BR,
                template_options=self._template_options,
                **options,
            )
            readings = replace(readings, gain=GainSignals(gain_BR=gain_BR))
        if "gold" in self.needs:
            scorer = PrefixScorer(self._logits, self._tokenizer, sampled, rows_per_forward=self._size)
            readings = replace(readings, gold=GoldSignals(score=scorer))
        return readings
