"""Where signals get attention from: a forward that somebody else runs over the same sequences, or one of their own.

1. What attention is wanted for is a `Pending`: some sequences, and what to do with their layers. It takes a few
   sequences at a time, from whichever forward has read them, and keeps only their scores.
2. `ride` listens to the forwards of a trainer. At the last layer that anybody wants, the sequences of that forward are
   scored, and its queries and keys are let go of: no more than one forward's are ever held.
3. `run_forwards` reads what is still missing, by forwards that end in the last layer that is wanted. Signals that ask
   for values beside attention always come to it: other passes are listened to for queries and keys alone.

`rides_truly` says whether a trainer's forwards may be listened to: whether the model attends in them as it does in our
own. Dropout does not, nor do positions that count padding, where a model sees more of them than their differences.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.credit.signals import Readings
from flowtracer.errors import InputError
from flowtracer.model.capture import AttentionReader, record_attention, refuse_looking_ahead
from flowtracer.model.contributions import ContributionReader
from flowtracer.shapes import Int
from flowtracer.signals.packed import Place, refuse_mixed, segments
from flowtracer.signals.sampled import Few, Sampled


class Pending(ABC):
    """A signal that waits for the attention of some sequences.

    Args:
        reader: Says which layers and heads.
        sampled: All sequences.
        ends_B: How many columns of each response are needed; of those with none, no attention is.
    """

    def __init__(
        self, reader: AttentionReader | ContributionReader, sampled: Sampled, ends_B: Int[Tensor, " B"]
    ) -> None:
        self.reader = reader
        self.sampled = sampled
        self.ends_B = ends_B
        self.awaited_B = ends_B > 0

    @property
    def rides(self) -> bool:
        """Whether attention is all that it waits for, so that a pass of somebody else can give it."""
        return isinstance(self.reader, AttentionReader)

    def choose(self, recorded: Mapping[int, LayerAttention]) -> list[LayerAttention]:
        """Its layers out of such a pass.

        Raises:
            InputError: It waits for more than attention.
        """
        if not isinstance(self.reader, AttentionReader):
            raise InputError("expected a signal of attention alone, got one that takes a forward of its own")
        return self.reader.choose(recorded)

    @property
    def missing(self) -> Int[Tensor, " N"]:
        """Numbers of the sequences that are still waited for."""
        return self.awaited_B.nonzero().squeeze(-1)

    def few(self, numbers: Int[Tensor, " N"]) -> Few:
        """These sequences, as far as their attention is needed; all of them where it is read only to keep step."""
        return self.sampled.few(numbers, int(self.ends_B[numbers].max()) or None)

    def take(self, few: Few, layers: Sequence[LayerAttention]) -> None:
        """Score a few sequences, which are then waited for no longer."""
        self.score(few, layers)
        self.awaited_B[few.numbers] = False

    @abstractmethod
    def score(self, few: Few, layers: Sequence[LayerAttention]) -> None:
        """Compute what is kept of a few sequences."""

    @abstractmethod
    def add_to(self, readings: Readings) -> Readings:
        """What was read before, and this signal."""


def run_forwards(waiting: Sequence[Pending], *, rows_per_forward: int, every_rank_alike: bool) -> int:
    """Read what signals still wait for, those of one reader in the same forwards; the sequences that one ran over.

    With `every_rank_alike`, for a model sharded over processes, whole forwards over all sequences, whatever is missing.
    """
    ran = 0
    for reader in dict.fromkeys(pending.reader for pending in waiting):
        alike = [pending for pending in waiting if pending.reader is reader]
        sampled = alike[0].sampled
        missing_B = torch.stack([pending.ends_B * pending.awaited_B for pending in alike]).amax(0)
        numbers = None if every_rank_alike else missing_B.nonzero().squeeze(-1)
        for some in sampled.slices(rows_per_forward, numbers):
            few = sampled.few(some, int(missing_B[some].max()) or None)
            layers = few.attend(reader, stop_early=not every_rank_alike)
            for pending in alike:
                _score_some(pending, few, layers)
        ran = max(ran, len(sampled) if numbers is None else len(numbers))
    return ran


def _score_some(pending: Pending, few: Few, layers: Sequence[LayerAttention]) -> None:
    """Score those of a few sequences that are waited for, as far as they are."""
    places = pending.awaited_B[few.numbers].nonzero().squeeze(-1)
    if len(places):
        own = pending.few(few.numbers[places])
        pending.take(own, replace(own, numbers=places, cut=own.cut - few.cut).part(layers))


@contextlib.contextmanager
def ride(model: Any, waiting: Sequence[Pending], places: Sequence[Place] | None = None) -> Iterator[None]:
    """Score what waits from the forwards of `model` inside the block, which run over all sequences in their order.

    Prompts and responses must stand in them as they do in `Sampled`, padding included; or, with `places`, in one
    forward without padding between prompt and response, each sequence from its own place on. Outputs stay as they are,
    to the bit.
    """
    layers = sorted({layer for pending in waiting for layer in pending.reader.layers})
    first = 0

    def read(attention: LayerAttention, value_BKTD: Tensor, output_BTHD: Tensor) -> None:
        nonlocal first
        if attention.layer != layers[-1]:
            return
        if places is None and attention.query_BHTD.shape[2] != waiting[0].sampled.width:
            return
        # The trainer's mixed precision is not for what is recomputed here.
        with torch.no_grad(), torch.autocast(value_BKTD.device.type, enabled=False):
            for pending in waiting:
                chosen = pending.choose(recorded)
                if places is None:
                    _score_part(pending, chosen, first)
                else:
                    _score_placed(pending, chosen, places)
        first += len(attention.query_BHTD)
        recorded.clear()

    if not waiting:
        yield
        return
    with record_attention(model, layers, observer=read) as recorded:
        yield


def _score_part(pending: Pending, layers: Sequence[LayerAttention], first: int) -> None:
    """Score the sequences from number `first` on, those of them that are waited for."""
    missing = pending.missing
    last = first + len(layers[0].query_BHTD)
    numbers = missing[(missing >= first) & (missing < last)]
    if not len(numbers):
        return
    few = pending.few(numbers)
    if few.images is not None:
        refuse_looking_ahead(layers)
    pending.take(few, few.part(layers, first))


def _score_placed(pending: Pending, layers: Sequence[LayerAttention], places: Sequence[Place]) -> None:
    """Score the sequences that are waited for, one at a time, each from its own place on."""
    refuse_mixed(layers, places)
    for number in pending.missing:
        few = pending.few(number[None])
        pending.take(few, segments(layers, places[int(number)], few.ids_BT.shape[1]))


def drops(model: Any) -> bool:
    """Whether the model drops anything at random as it trains: its passes then attend otherwise than our own."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def rides_truly(model: Any, reader: AttentionReader) -> bool:
    """Whether attention in the forwards of a trainer is that of our own, seen on a few tokens with padding in front."""
    if drops(model):
        return False
    embeddings = model.get_input_embeddings()
    ids_1T = torch.arange(8, device=embeddings.weight.device)[None] % embeddings.num_embeddings
    mask_1T = (torch.arange(8, device=ids_1T.device) >= 3).long()[None]
    few = Few(
        numbers=torch.zeros(1, dtype=torch.long), ids_BT=ids_1T, mask_BT=mask_1T, content_BT=ids_1T, first=3, cut=0
    )
    own = few.attend(reader, stop_early=False)
    devices = [ids_1T.device] if ids_1T.device.type == "cuda" else []
    with torch.random.fork_rng(devices), record_attention(model, reader.layers) as recorded, torch.no_grad():
        model(input_ids=ids_1T, attention_mask=mask_1T)  # in the trainer's mode, and without positions, as it does
    return agree(own, reader.choose(recorded), few)


def agree(some: Sequence[LayerAttention], others: Sequence[LayerAttention], few: Few) -> bool:
    """Whether two readings of the same sequences have the same attention at the first tokens of the responses."""
    stop = min(few.first + 16, few.ids_BT.shape[1])
    counted_BP = few.mask_BT[:, few.first : stop].bool()
    tolerance = 1e-4 if some[0].query_BHTD.dtype == torch.float32 else 5e-2
    for one, other in zip(some, others, strict=True):
        apart_BHPC = (one.weights(few.first, stop) - other.weights(few.first, stop)).abs()
        if not bool((apart_BHPC.amax((1, 3))[counted_BP.to(apart_BHPC.device)] <= tolerance).all()):
            return False
    return True
