"""The table of a causal check, by hand; and which tokens each variant takes."""

import math

import numpy as np
import pytest

from flowtracer.checks.masking import Outcome, VariantOutcome, choose_variants, summarise
from flowtracer.intervals import mean_interval, paired_difference

CANDIDATES = np.arange(10, 20)
SCORES = {"flow": np.array([5.0, 9.0, 1.0, 8.0, 2.0, 0.0, 3.0, 4.0, 6.0, 7.0])}


def test_variants_hide_the_top_the_bottom_and_random_tokens():
    variants = choose_variants(CANDIDATES, SCORES, (0.2, 0.4), seed=3)
    by = {(v.by, v.end, v.share, v.keeps): v.hidden for v in variants}
    assert by["flow", "top", 0.2, False] == (11, 13)
    assert by["flow", "top", 0.4, False] == (11, 13, 18, 19)
    assert by["flow", "bottom", 0.2, False] == (12, 15)
    assert by["flow", "top", 0.2, True] == (10, 12, 14, 15, 16, 17, 18, 19), "insertion keeps the top alone"
    assert len(by["random", "random", 0.4, False]) == 4
    assert set(by["random", "random", 0.2, False]) < set(by["random", "random", 0.4, False]), "one order for all shares"
    assert set(by["random", "random", 0.4, False]) | set(by["random", "random", 0.4, True]) == set(CANDIDATES)
    assert ("flow", "bottom", 0.2, True) not in by
    assert len(variants) == 2 * (2 + 1 + 2)


def test_at_least_one_token_and_ties_to_the_earlier():
    flat = {"flow": np.zeros(10)}
    variants = choose_variants(CANDIDATES, flat, (0.01,), curves=False, draws=2)
    assert [(v.end, v.hidden) for v in variants[:2]] == [("top", (10,)), ("bottom", (19,))]
    assert [(v.end, v.draw) for v in variants[2:]] == [("random", 0), ("random", 1)]


def outcome(number, correct, changes):
    variants = [
        VariantOutcome(
            by=by,
            end=end,
            share=0.2,
            keeps=keeps,
            draw=draw,
            answer="x",
            changed=changed,
            correct=None if correct is None else correct != flipped,
            log_prob_change=log_prob,
        )
        for by, end, keeps, draw, changed, flipped, log_prob in changes
    ]
    return Outcome(
        id=str(number),
        candidates=10,
        tokens=30,
        answer="1",
        gold=None if correct is None else "1",
        correct=correct,
        log_prob=-0.5,
        variants=variants,
    )


def test_the_table_by_hand():
    outcomes = [
        outcome(0, True, [("flow", "top", False, 0, True, True, -3.0), ("flow", "bottom", False, 0, False, False, -0.1),
                          ("random", "random", False, 0, True, True, -1.0),
                          ("random", "random", False, 1, False, False, 0.0),
                          ("flow", "top", True, 0, False, False, -1.0)]),
        outcome(1, None, [("flow", "top", False, 0, True, False, -1.0), ("flow", "bottom", False, 0, True, False, -0.3),
                          ("random", "random", False, 0, False, False, 0.0),
                          ("random", "random", False, 1, False, False, 0.0),
                          ("flow", "top", True, 0, True, False, -2.0)]),
    ]  # fmt: skip
    summary = summarise(outcomes)
    assert (summary.rollouts, summary.graded, summary.right_before) == (2, 1, 1.0)
    top, bottom, random = summary.rows
    assert (top.changed.mean, bottom.changed.mean, random.changed.mean) == (1.0, 0.5, 0.25)
    assert (top.flipped.mean, top.flipped.items) == (1.0, 1)
    assert random.flipped.mean == 0.5, "the draws of a rollout are averaged first"
    assert top.log_prob_change.mean == pytest.approx(-2.0)
    assert top.changed_over_random.mean == 0.75
    assert summary.top_over_bottom["flow"]["0.2"].mean == 0.5
    curves = {(curve.by, curve.kind): curve for curve in summary.curves}
    assert set(curves) == {("flow", "deletion"), ("flow", "insertion"), ("random", "deletion")}
    assert curves["flow", "deletion"].heights == [0.0, -2.0]
    assert curves["flow", "deletion"].area.mean == pytest.approx(-1.0)
    assert curves["flow", "insertion"].area.mean == pytest.approx(-1.5)


def test_nothing_checked_is_an_empty_table():
    summary = summarise([])
    assert (summary.rollouts, summary.rows, summary.right_before) == (0, [], None)


def test_intervals():
    generator = np.random.default_rng(0)
    values = generator.normal(size=400)
    found = mean_interval(values)
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert mean_interval(values) == found, "the same draws each time"
    assert mean_interval(np.array([])).items == 0
    noise = generator.normal(size=400)
    shift = paired_difference(noise + 0.5, noise)
    assert (shift.low, shift.high) == (pytest.approx(0.5), pytest.approx(0.5)), "what both share cancels"


def test_intervals_cover():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        found = mean_interval((generator.random(150) < 0.3).astype(float))
        hits += found.low <= 0.3 <= found.high
    assert hits >= 51  # 95 % of 60 is 57; fewer than 51 has a probability below 0.5 %
