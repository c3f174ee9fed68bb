"""Do scores order tokens by what hiding each of them does to the answer?

Hiding one token at a time gives every token of a response its own effect (`effects.py`), so a score is judged by all
that it says, not by its top alone: the rank correlation of score and size of effect, and the share of all effect that
stands on the fifth of the tokens that the score puts first. The last tokens before the answer are its cue, whose effect
is large and says little; both numbers are also taken without them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flowtracer.checks.masking.scores import TokenScorer
from flowtracer.checks.ranks import correlation_of, ranks
from flowtracer.errors import InputError
from flowtracer.intervals import Interval, mean_interval, paired_difference
from flowtracer.shapes import Float, ndarray
from flowtracer.trace.trace import Trace

CUE = 6
"""Tokens before the answer that are left out where its cue shall not count."""
TOP = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectAgreement:
    """How one score of one response agrees with the effects of its tokens."""

    correlation: float
    """Spearman's, of score and size of effect; NaN where one does not vary."""
    away: float
    """The same without the last tokens before the answer."""
    top: float
    """Share of the sum of all sizes of effect on the fifth of the tokens that score highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreAgreement:
    """A score over many responses, with intervals over them."""

    name: str
    correlation: Interval
    away: Interval
    top: Interval
    over: Interval
    """Correlation minus that of the first score, response by response."""


def agree(trace: Trace, scores: Mapping[str, Float[ndarray, " R"]]) -> dict[str, EffectAgreement]:
    """Every score of the response's tokens against the effects that the trace holds.

    Raises:
        InputError: A trace without effects of all tokens before the answer.
    """
    tokens = range(max(trace.response.start, 1), trace.answer.start)
    if missing := [token for token in tokens if token not in trace.effects]:
        raise InputError(
            f"expected effects of all {len(tokens)} tokens before the answer, got none of {len(missing)}; "
            "trace with --effects all"
        )
    sizes_N = np.abs([trace.effects[token] for token in tokens])
    places_N = np.array(tokens) - trace.response.start
    return {name: _agreement(scores_R[places_N], sizes_N) for name, scores_R in scores.items()}


def _agreement(scores_N: Float[ndarray, " N"], sizes_N: Float[ndarray, " N"]) -> EffectAgreement:
    first = np.argsort(-scores_N, kind="stable")[: max(1, round(TOP * len(scores_N)))]
    return EffectAgreement(
        correlation=correlation_of(ranks(scores_N), ranks(sizes_N)),
        away=correlation_of(ranks(scores_N[:-CUE]), ranks(sizes_N[:-CUE])) if len(scores_N) > CUE else float("nan"),
        top=float(sizes_N[first].sum() / max(sizes_N.sum(), np.finfo(float).tiny)),
    )


def agreement_of(scorer: TokenScorer, trace: Trace, *, seed: int = 0) -> dict[str, EffectAgreement]:
    """Of every strategy of a scorer with the effects that one trace holds.

    Raises:
        InputError: A trace without effects of all tokens before the answer.
        TraceError: A strategy has nothing to say about this response.
    """
    ids = trace.token_ids.tolist()
    prompt, response = ids[: trace.response.start], ids[trace.response.start :]
    return agree(trace, scorer.scores(prompt, response, zlib.crc32(trace.token_ids.tobytes(), seed)))


def summarise_agreement(each: Sequence[Mapping[str, EffectAgreement]]) -> list[ScoreAgreement]:
    """Every score over all responses, the best first; `over` is over the first name. NaN counts as no agreement."""
    names = list(each[0])
    values = {
        name: {field: np.nan_to_num([getattr(one[name], field) for one in each]) for field in EffectAgreement.__slots__}
        for name in names
    }
    found = [
        ScoreAgreement(
            name=name,
            **{field: mean_interval(values[name][field]) for field in EffectAgreement.__slots__},
            over=paired_difference(values[name]["correlation"], values[names[0]]["correlation"]),
        )
        for name in names
    ]
    return sorted(found, key=lambda row: -row.correlation.mean)
