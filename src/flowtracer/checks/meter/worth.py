"""What strategies are worth, out of measured minibatches.

    worth(c) = E[<g_c, g*> / |g_c|]  /  E[<g_u, g*> / |g_u|]        u = uniform, on the same minibatches

Its interval is the paired bootstrap's of a ratio of means: both sides see the same draws of minibatches. In Adam's
metric the step is `P g_c`. The noise of `g*` is common to all strategies: it costs power, not fairness.

The best mix of K strategies is closed-form: of all `sum_k a_k g_k`, `a = M^-1 s` goes furthest, with
`s_k = E<g_k, g*>` and `M_kl = E<g_k, g_l>`. Each minibatch is measured with the coefficients that the others give, and
by the half of `g*` that did not give them, so that the mix is flattered neither by the minibatches nor by the noise of
`g*` that it was chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.checks.meter.minibatch import CEILINGS, Measured
from flowtracer.errors import InputError
from flowtracer.intervals import Interval, ratio_of_means
from flowtracer.shapes import Float, ndarray

UNIFORM = "uniform"
RIDGE = 1e-2
"""Added to the diagonal of M, with all norms made 1: strategies agree on most tokens, and M is almost singular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a strategy is worth: 1 is what plain GRPO is."""

    name: str
    kind: str
    """"strategy", "ceiling", "flattered" (a ceiling measured by the half of `g*` that chose it) or "mix"."""
    plain: Interval
    """Along the gradient itself."""
    adam: Interval | None
    """Along Adam's step; None for the mix."""

    @property
    def rollouts(self) -> float:
        """How many times the rollouts plain GRPO would need: the square, where the cosine with `g*` is small."""
        return self.plain.mean * abs(self.plain.mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The best mix of strategies."""

    coefficients: dict[str, float]
    """Of each strategy's advantages, in units that make the sizes sum to 1; chosen on all minibatches."""
    worth: Worth


def gains(measured: Sequence[Measured], place: int, *, halves: slice = slice(None), adam: bool = False) -> ndarray:
    """`<g_c, g*> / |g_c|` by minibatch; 0 where there is no gradient at all."""
    inner_M, norm_M = np.empty((2, len(measured)))
    for number, each in enumerate(measured):
        inner_K2, norm_K = (each.adam_inner_K2, each.adam_norm_K) if adam else (each.inner_K2, each.norm_K)
        inner_M[number], norm_M[number] = float(inner_K2[place, halves].mean()), float(norm_K[place])
    return np.divide(inner_M, norm_M, out=np.zeros_like(inner_M), where=norm_M > 0)


def worths(measured: Sequence[Measured], names: Sequence[str], *, seed: int = 0) -> list[Worth]:
    """Of every strategy and of the ceilings, the largest first.

    Raises:
        InputError: There is no `uniform` to compare with.
    """
    if UNIFORM not in names:
        raise InputError(f"expected {UNIFORM} among the strategies, got {', '.join(names)}")
    base = {adam: gains(measured, list(names).index(UNIFORM), adam=adam) for adam in (False, True)}

    def against_uniform(name: str, kind: str, gain: dict[bool, ndarray]) -> Worth:
        plain, adam = (ratio_of_means(gain[metric], base[metric], seed=seed) for metric in (False, True))
        return Worth(name=name, kind=kind, plain=plain, adam=adam)

    found = [
        against_uniform(name, "strategy", {adam: gains(measured, place, adam=adam) for adam in (False, True)})
        for place, name in enumerate(names)
    ]
    for number, name in enumerate(CEILINGS):
        for kind, other in (("ceiling", 1), ("flattered", 0)):
            by_half = [
                {
                    adam: gains(
                        measured,
                        len(names) + 2 * number + half,
                        halves=slice(half ^ other, (half ^ other) + 1),
                        adam=adam,
                    )
                    for adam in (False, True)
                }
                for half in (0, 1)
            ]
            both = {adam: (by_half[0][adam] + by_half[1][adam]) / 2 for adam in (False, True)}
            found.append(against_uniform(name, kind, both))
    return sorted(found, key=lambda worth: -worth.plain.mean)


def best_mix(measured: Sequence[Measured], names: Sequence[str], chosen: Sequence[str], *, seed: int = 0) -> Mix | None:
    """The best mix of the chosen strategies; None of fewer than two, or where gradients were not held together."""
    places = [list(names).index(name) for name in chosen]
    gram_MKK = np.stack([each.gram_KK[places][:, places].double().numpy() for each in measured])
    inner_MK2 = np.stack([each.inner_K2[places].double().numpy() for each in measured])
    if len(places) < 2 or len(measured) < 2 or np.isnan(gram_MKK).any():
        return None
    gain_M = np.zeros(len(measured))
    for number in range(len(measured)):
        others = np.arange(len(measured)) != number
        for half in (0, 1):
            mix_K = _solve(gram_MKK[others].mean(0), inner_MK2[others, :, half].mean(0))
            norm = np.sqrt(mix_K @ gram_MKK[number] @ mix_K)
            gain_M[number] += mix_K @ inner_MK2[number, :, 1 - half] / norm / 2 if norm > 0 else 0.0
    mix_K = _solve(gram_MKK.mean(0), inner_MK2.mean((0, 2)))
    plain = ratio_of_means(gain_M, gains(measured, list(names).index(UNIFORM)), seed=seed)
    shares_K = mix_K / np.abs(mix_K).sum()
    return Mix(
        coefficients=dict(zip(chosen, map(float, shares_K), strict=True)),
        worth=Worth(name="best mix", kind="mix", plain=plain, adam=None),
    )


def _solve(gram_KK: Float[ndarray, "K K"], inner_K: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """`M^-1 s`, with a ridge."""
    size_K = np.sqrt(np.diag(gram_KK))
    size_K[size_K == 0] = 1  # a strategy without any gradient gets no part
    unit_KK = gram_KK / np.outer(size_K, size_K) + RIDGE * np.eye(len(size_K))
    return np.asarray(np.linalg.solve(unit_KK, inner_K / size_K) / size_K)
