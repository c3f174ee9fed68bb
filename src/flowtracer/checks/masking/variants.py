"""Which tokens each variant of a rollout hides.

For every strategy its top and its bottom tokens, and for comparison tokens drawn at random; at each share of the
candidates. With curves, also the reverse: everything is hidden but the top, or but a random draw.

- *Deletion* hides the top share: a good score makes the answer fall early.
- *Insertion* keeps the top share alone: a good score brings the answer back early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.shapes import Float, Int, ndarray

RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One choice of hidden tokens."""

    by: str
    """The strategy whose scores chose, or "random"."""
    end: str
    """"top", "bottom" or "random"."""
    share: float
    """Share of the candidates that was chosen."""
    keeps: bool
    """The chosen tokens are the only candidates that are not hidden: insertion."""
    draw: int
    """Number of the random draw."""
    hidden: tuple[int, ...]
    """Places in the sequence, in order."""


def choose_variants(
    candidates_N: Int[ndarray, " N"],
    scores: Mapping[str, Float[ndarray, " N"]],
    shares: Sequence[float],
    *,
    draws: int = 1,
    curves: bool = True,
    seed: int = 0,
) -> list[Variant]:
    """All variants of one rollout.

    Args:
        candidates_N: Places of the tokens that may be hidden.
        scores: Scores of the candidates, by strategy; of equal ones the earlier counts as higher.
        shares: Shares of the candidates, each rounded to a whole number of at least one token.
        draws: Random draws at each share.
        curves: Add the variants that keep the chosen tokens alone.
        seed: Of the random draws.
    """
    orders: list[tuple[str, str, int, Int[ndarray, " N"]]] = []
    for name, scores_N in scores.items():
        falling_N = np.argsort(-scores_N, kind="stable")
        orders += [(name, "top", 0, falling_N), (name, "bottom", 0, falling_N[::-1])]
    generator = np.random.default_rng(seed)
    orders += [(RANDOM, RANDOM, draw, generator.permutation(len(candidates_N))) for draw in range(draws)]
    found = []
    for name, end, draw, order_N in orders:
        for share in shares:
            count = max(1, round(share * len(candidates_N)))
            for keeps in (False, True) if curves and end != "bottom" else (False,):
                hidden_N = candidates_N[order_N[count:] if keeps else order_N[:count]]
                hidden = tuple(int(place) for place in np.sort(hidden_N))
                found.append(Variant(by=name, end=end, share=share, keeps=keeps, draw=draw, hidden=hidden))
    return found
