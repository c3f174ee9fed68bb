"""Strategies that read the same of a model, as one: what costs a forward is computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowtracer.credit.base import Credit
from flowtracer.credit.signals import Reads, Signals, reads_of
from flowtracer.shapes import Bool, Float


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Strategies by name, with the union of their needs."""

    credits: Mapping[str, Credit]
    reads: Reads

    def __call__(self, signals: Signals) -> Float[Tensor, "N B R"]:
        """Advantages by each."""
        return torch.stack([credit(signals) for credit in self.credits.values()])

    def scores(self, signals: Signals) -> Iterator[tuple[str, Float[Tensor, "B R"], Bool[Tensor, " B"] | None]]:
        """Scores by those that have some, and which responses they are about; None for all."""
        for name, credit in self.credits.items():
            scores: Callable[[Signals], Tensor] | None = getattr(credit, "scores", None)
            if scores is not None:
                speaks: Callable[[Signals], Tensor] | None = getattr(credit, "speaks", None)
                yield name, scores(signals), None if speaks is None else speaks(signals)


def read_together(strategies: Mapping[str, Credit]) -> list[Together]:
    """The strategies, those together that agree in layers, place and target, and in whether they compare a group."""
    alike: dict[Reads, dict[str, Credit]] = {}
    for name, credit in strategies.items():
        reads = reads_of(credit)
        alike.setdefault(replace(reads, needs=reads.needs & {"group"}), {})[name] = credit
    return [
        Together(
            credits=credits,
            reads=replace(
                reads, needs=frozenset[str]().union(*(reads_of(credit).needs for credit in credits.values()))
            ),
        )
        for reads, credits in alike.items()
    ]
