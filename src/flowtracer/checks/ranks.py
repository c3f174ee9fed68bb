"""Scores against a truth, by rank: what the checks say of where a strategy's scores land."""

from __future__ import annotations

import numpy as np

from flowtracer.shapes import Float, ndarray


def ranks(values_N: Float[ndarray, " N"]) -> Float[ndarray, " N"]:
    """Places from 0, the lowest first; equal values share the mean of theirs."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[inverse_N])


def auroc_of(rank_N: Float[ndarray, " N"], contribution_N: Float[ndarray, " N"]) -> float:
    """Chance that help stands above hurt, by their sizes, ties counting half; NaN where there is only one of them."""
    _, place_N = np.unique(rank_N, return_inverse=True)
    help_U = np.bincount(place_N, np.maximum(contribution_N, 0))
    hurt_U = np.bincount(place_N, np.maximum(-contribution_N, 0))
    pairs = help_U.sum() * hurt_U.sum()
    return float(help_U @ (np.cumsum(hurt_U) - hurt_U / 2) / pairs) if pairs > 0 else float("nan")


def correlation_of(one_N: Float[ndarray, " N"], other_N: Float[ndarray, " N"]) -> float:
    """Pearson's correlation, of ranks Spearman's; NaN where one does not vary."""
    one_N, other_N = one_N - one_N.mean(), other_N - other_N.mean()
    size = np.sqrt((one_N @ one_N) * (other_N @ other_N))
    return float(one_N @ other_N / size) if size > 0 else float("nan")
