"""Each strategy on a case worked by hand."""

import math
from dataclasses import replace

import pytest
import torch

from credit_cases import TableAligner, TableScorer, full_mask, signals_of
from flowtracer.credit import make_credit
from flowtracer.credit.likelihood_gain import balanced_clip
from flowtracer.errors import InputError


def row(*values):
    return torch.tensor([values], dtype=torch.float32)


def mark(n, *places):
    return torch.isin(torch.arange(n), torch.tensor(places, dtype=torch.long))[None]


def assert_rows(got_BR, *expected):
    torch.testing.assert_close(got_BR, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_uniform_is_the_advantage_to_the_bit():
    signals = signals_of(full_mask(3, 2), [0.3, -1.7])
    assert torch.equal(make_credit("uniform")(signals), signals.advantages_B[:, None].expand(2, 3))


def test_position_boosts_what_stands_nearest_to_the_answer():
    answer_BR = mark(5, 3)
    signals = signals_of(5, [-2.0], answer_BR=answer_BR, reasoning_BR=mark(5, 0, 1, 2))
    # distances 3 2 1 0 1: the answer, and of the two next to it the earlier
    assert_rows(make_credit("position")(signals), [-2.0, -2.0, -3.0, -3.0, -2.0])
    assert_rows(make_credit("position", {"keep": "bottom"})(signals), [-3.0, -3.0, -2.0, -2.0, -2.0])
    silent = signals_of(5, [-2.0], answer_BR=mark(5), reasoning_BR=mark(5))
    assert_rows(make_credit("position")(silent), [-2.0] * 5)


def test_flow_may_boost_one_sign_alone():
    mask_BR = full_mask(5, 5)
    throughput_BR = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]] * 2)
    signals = signals_of(mask_BR, [1.0, -1.0], throughput_BR=throughput_BR, traced_B=torch.tensor([True, True]))
    boosted, plain = [1.0, 1.5, 1.0, 1.5, 1.0], [1.0] * 5
    assert_rows(make_credit("flow")(signals), boosted, [-x for x in boosted])
    assert_rows(make_credit("flow", {"sign": "positive"})(signals), boosted, [-x for x in plain])
    assert_rows(make_credit("flow", {"sign": "negative"})(signals), plain, [-x for x in boosted])


def test_shuffled_deals_the_scores_of_flow_out_anew():
    throughput_BR = torch.arange(1.0, 11.0)[None]
    signals = signals_of(full_mask(8, 10)[:1], throughput_BR=throughput_BR, traced_B=torch.tensor([True]))
    credit = make_credit("shuffled", {"seed": 4})
    scores = credit.scores(signals)[0, :8]
    assert sorted(scores.tolist()) == list(range(1, 9)), "a permutation of the counted tokens' scores"
    assert scores.tolist() != list(range(1, 9))
    assert torch.equal(credit.scores(signals)[0, :8], scores)
    assert int((credit(signals) > 1).sum()) == 4  # ceil(0.4 * 8)


def test_entropy_boosts_the_least_sure():
    signals = signals_of(5, entropy_BR=row(0.0, 2.0, 0.5, 1.0, 0.1), log_prob_BR=row(*[0.0] * 5))
    assert_rows(make_credit("entropy")(signals), [1.0, 1.5, 1.0, 1.5, 1.0])


def test_entropy_8020_keeps_the_forking_tokens_of_the_whole_batch():
    entropy_BR = torch.tensor([[0.1, 0.2, 0.3, 0.4, 9.0], [5.0, 4.0, 0.0, 0.0, 7.0]])
    mask_BR = full_mask(4, 5)  # the 9 is padding: nine tokens count, and ceil(0.2 * 9) = 2 are kept
    signals = signals_of(mask_BR, [1.0, -1.0], entropy_BR=entropy_BR, log_prob_BR=entropy_BR)
    assert_rows(make_credit("entropy_8020")(signals), [0.0] * 5, [-4.5, 0.0, 0.0, 0.0, -4.5])
    one = signals_of(2, entropy_BR=row(0.3, 0.4), log_prob_BR=row(0.0, 0.0))
    assert_rows(make_credit("entropy_8020", {"rho": 0.01})(one), [0.0, 2.0])


def test_attention_boosts_what_is_looked_at():
    signals = signals_of(5, received_BR=row(0.9, 0.1, 0.5, 0.0, 0.2), row_entropy_BR=row(*[0.0] * 5))
    assert_rows(make_credit("attention")(signals), [1.5, 1.0, 1.5, 1.0, 1.0])


WAAD = (4.0, 1.0, 1.5, 6.0, 1.0)  # steps 3 0.5 4.5 5 and, at the end, 0: openings, above the median 3, are 2 and 3
FAI = (0.1, 0.2, 0.9, 0.3, 0.8)


def test_local_boosts_the_steps_of_waad():
    signals = signals_of(5, local_distance_BR=row(*WAAD), future_attention_BR=row(*FAI))
    assert_rows(make_credit("local")(signals), [1.0, 1.0, 1.5, 1.5, 1.0])


def test_global_boosts_future_attention():
    signals = signals_of(5, local_distance_BR=row(*WAAD), future_attention_BR=row(*FAI))
    assert_rows(make_credit("global")(signals), [1.0, 1.0, 1.5, 1.0, 1.5])


def test_coupled_hands_half_of_a_dominated_anchors_bonus_to_its_opening():
    signals = signals_of(5, local_distance_BR=row(*WAAD), future_attention_BR=row(*FAI))
    # Anchors 2 and 4. The median WAAD is 1.5, so both lie within a chunk; the largest steps before them are 3, at the
    # median, and 5: openings 0 and 3.
    assert_rows(make_credit("coupled")(signals), [1.25, 1.0, 1.25, 1.25, 1.25])
    assert_rows(make_credit("coupled", {"alpha": 0.0})(signals), [1.0, 1.0, 1.5, 1.0, 1.5])
    assert_rows(make_credit("coupled", {"alpha": 1.0, "gamma": 2.0})(signals), [2.0, 1.0, 1.0, 2.0, 1.0])


def test_coupled_pays_an_opening_once_however_many_anchors_follow_it():
    # WAAD 9 1 1 1 9 9: steps 8 0 0 8 0 and, at the end, 0, median 0; median WAAD 5. Anchors 1, 2, 3 follow opening 0.
    waad, fai = row(9.0, 1.0, 1.0, 1.0, 9.0, 9.0), row(0.0, 0.9, 0.8, 0.7, 0.0, 0.0)
    signals = signals_of(6, [2.0], local_distance_BR=waad, future_attention_BR=fai)
    assert_rows(make_credit("coupled")(signals), [2.5, 2.5, 2.5, 2.5, 2.0, 2.0])
    # An anchor with a high WAAD is not dominated; where it is an opening too, it gets both.
    both = signals_of(6, local_distance_BR=waad, future_attention_BR=row(0.9, 0.8, 0.7, 0.0, 0.0, 0.0))
    assert_rows(make_credit("coupled")(both), [1.75, 1.25, 1.25, 1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ["local", "global", "coupled"])
def test_wrong_responses_get_none_of_the_attention_rules(name):
    given = {"local_distance_BR": row(*WAAD).expand(2, -1), "future_attention_BR": row(*FAI).expand(2, -1)}
    signals = signals_of(full_mask(5, 5), [1.0, -1.0], **given)
    got_BR = make_credit(name)(signals)
    assert bool((got_BR[0] > 1).any())
    assert_rows(got_BR[1:], [-1.0] * 5)
    both_BR = make_credit(name, {"sign": "both"})(signals)
    assert_rows(both_BR[1:], (-both_BR[0]).tolist())


def test_gradient_boosts_the_most_sensitive_before_the_answer():
    given = {"answer_BR": mark(6, 4), "reasoning_BR": mark(6, 0, 1, 2, 3)}
    saliency = {"saliency_BR": row(0.1, 0.4, 0.3, 0.2, 9.0, 9.0), "saliency_before_BR": row(*[0.0] * 6)}
    signals = signals_of(6, **given, **saliency)
    assert_rows(make_credit("gradient")(signals), [1.0, 1.5, 1.5, 1.5, 1.0, 1.0])  # ceil(0.4 * 6) = 3


def test_grail_blames_by_z_score_where_the_advantage_is_not_positive():
    n = 7  # reasoning 0 1 2, the box's marker 3, inside 4, its closing brace 5, what follows 6
    given = {"answer_BR": mark(n, 4), "whole_BR": mark(n, 3, 4, 5), "reasoning_BR": mark(n, 0, 1, 2)}
    logs = [1.0, 3.0, 9.0, 5.0, 2.0, 2.0, 6.0]  # mean 4; squares 9 1 25 1 4 4 4 of 7
    before_BR = torch.tensor([logs] * 2).exp()
    given = {name: value.expand(2, -1) for name, value in given.items()}
    signals = signals_of(full_mask(n, n), [1.0, -1.0], **given, saliency_before_BR=before_BR)
    deviation = math.sqrt(48 / 7)
    blamed = [max(1 + (x - 4) / deviation / 2, 0.5) for x in logs[:3]]
    assert blamed[0] == 0.5 < 1 - 3 / (2 * deviation) + 0.08, "the lowest is clipped"
    got_BR = make_credit("grail")(signals)
    assert_rows(got_BR, [1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0], [-x for x in [*blamed, 1.0, 5.0, 1.0, 1.0]])


def test_grail_counts_a_token_that_closes_the_box_as_its_end():
    given = {"answer_BR": mark(4, 2, 3), "whole_BR": mark(4, 1, 2, 3), "reasoning_BR": mark(4, 0)}
    signals = signals_of(4, **given, saliency_before_BR=row(1.0, 1.0, 1.0, 1.0))
    assert_rows(make_credit("grail")(signals), [1.0, 1.0, 5.0, 1.0])
    assert_rows(make_credit("grail", {"target": "answer"})(signals), [1.0, 1.0, 5.0, 5.0])


def test_grail_without_a_box_is_plain_grpo():
    signals = signals_of(3, [-1.0], answer_BR=mark(3), saliency_before_BR=row(1.0, 2.0, 3.0))
    assert_rows(make_credit("grail")(signals), [-1.0] * 3)


def test_oar_damps_below_the_quantile_and_raises_above_it():
    # log1p(I) = 0 1 2 3 4 over the reasoning: x = 0, 1/4, 1/2, 3/4, 1; the 0.25 quantile is 1/4, the 0.4 one 0.4
    influence = [math.expm1(k) for k in range(5)] + [50.0]
    given = {"answer_BR": mark(6, 5), "whole_BR": mark(6, 5), "reasoning_BR": mark(6, 0, 1, 2, 3, 4)}
    signals = signals_of(6, [2.0], **given, influence_BR=row(*influence))
    readme = [0.1, 1.0, 1 + (1 / 4) / (3 / 4), 1 + (1 / 2) / (3 / 4), 2.0]
    assert_rows(make_credit("oar")(signals), [*(2 * w * 5 / sum(readme) for w in readme), 2.0])
    grail = [0.1, 0.25 / 0.4, 1 + 2 * 0.1 / 0.6, 1 + 2 * 0.35 / 0.6, 3.0]
    assert_rows(make_credit("oar", {"variant": "grail"})(signals), [*(2 * w * 5 / sum(grail) for w in grail), 2.0])
    assert make_credit("oar", {"variant": "grail", "beta": 0.5}).constants == (0.4, 0.5)
    flat = signals_of(6, [2.0], **given, influence_BR=row(*[1.0] * 6))
    assert_rows(make_credit("oar")(flat), [2.0] * 6)


def test_correlation_boosts_what_only_right_or_wrong_responses_hold():
    ids_BR = torch.tensor([[1, 2, 3, 9, 9], [1, 2, 4, 9, 9], [1, 5, 3, 9, 9], [1, 5, 4, 9, 9], [7, 7, 8, 9, 9]])
    rewards_B = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])  # token 2 is in the right ones, 5 in the wrong ones
    given = {"groups_B": torch.tensor([0, 0, 0, 0, 1]), "rewards_B": rewards_B, "baselines_B": rewards_B}
    signals = signals_of(full_mask(3, 3, 3, 3, 5), token_ids_BR=ids_BR, **given)
    credit = make_credit("correlation", {"ratio": 0.3})
    assert_rows(credit.scores(signals)[:4, :3], *[[0.0, 1.0, 0.0]] * 4)
    assert_rows(credit(signals)[:4, :3], *[[1.0, 1.5, 1.0]] * 4)
    assert_rows(credit(signals)[4:], [1.0] * 5)


def test_flow_contrast_boosts_where_right_and_wrong_responses_let_different_amounts_flow():
    ids_BR = torch.tensor([[1, 2, 3], [2, 1, 3], [3, 2, 1], [1, 2, 3], [1, 2, 9]])
    throughput_BR = torch.tensor([[0.2, 0.9, 0.4], [0.7, 0.2, 0.4], [0.4, 0.1, 0.2], [0.2, 0.3, 0.4], [0.0, 0.0, 0.9]])
    given = {"groups_B": torch.tensor([0, 0, 0, 0, 0]), "rewards_B": torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])}
    given["baselines_B"] = given["rewards_B"]
    flow = {"throughput_BR": throughput_BR, "traced_B": torch.tensor([True, True, True, True, False])}
    signals = signals_of(full_mask(3, 3, 3, 3, 3), token_ids_BR=ids_BR, **given, **flow)
    credit = make_credit("flow_contrast", {"ratio": 0.3})
    # Token 1 and token 3 let as much flow in all that were traced; through 2 flow 0.9 and 0.7 against 0.1 and 0.3.
    high = 1.2 / math.sqrt(4 * (0.4**2 + 0.2**2 + 0.4**2 + 0.2**2))
    assert_rows(credit.scores(signals)[[0, 3]], *[[0.0, high, 0.0]] * 2)
    assert_rows(credit.scores(signals)[1:2], [high, 0.0, 0.0])
    assert_rows(credit(signals)[[0, 1, 4]], [1.0, 1.5, 1.0], [1.5, 1.0, 1.0], [1.0, 1.0, 1.0])


def test_free_flow_boosts_what_carried_the_answer_and_was_not_certain():
    signals = signals_of(
        3,
        throughput_BR=row(0.9, 0.5, 0.2),
        traced_B=torch.tensor([True]),
        log_prob_BR=row(0.0, math.log(0.5), math.log(0.1)),
    )
    credit = make_credit("free_flow", {"ratio": 0.3})
    assert_rows(credit.scores(signals), [0.0, 0.25, 0.18])
    assert_rows(credit(signals), [1.0, 1.5, 1.0])


def test_likelihood_gain_moves_the_advantage_towards_what_serves_the_gold_answer():
    # Tokens 0 to 3 lead up to the box's content, 4, and leave the loss behind it. Centred: -1.5 -0.5 0.5 1.5, root
    # mean square sqrt(5)/2; nothing is clipped beyond +-1 but the ends.
    given = {"answer_BR": mark(6, 4).expand(2, -1), "whole_BR": mark(6, 3, 4, 5).expand(2, -1)}
    gain_BR = torch.tensor([[0.0, 1.0, 2.0, 3.0, 99.0, 99.0]] * 2)
    signals = signals_of(full_mask(6, 6), [2.0, -2.0], **given, gain_BR=gain_BR)
    middle = 0.5 / (math.sqrt(5) / 2)
    omega = [-1.0, -middle, middle, 1.0]  # symmetric, so tau is 0
    got_BR = make_credit("likelihood_gain")(signals)
    assert_rows(got_BR, [2 + 0.5 * 2 * w for w in omega] + [0.0, 0.0], [-2 + 0.5 * 2 * w for w in omega] + [0.0, 0.0])
    without = signals_of(4, [2.0], gain_BR=row(0.0, 1.0, 2.0, 3.0), answer_BR=mark(4))
    assert_rows(make_credit("likelihood_gain")(without), [2 + 0.5 * 2 * w for w in omega])


def test_likelihood_gain_is_scaled_over_all_processes():
    gain_BR = torch.tensor([[0.0, 0.2], [0.0, 4.0]])
    together = make_credit("likelihood_gain")(
        signals_of(full_mask(2, 2), gain_BR=gain_BR, answer_BR=mark(2).expand(2, -1))
    )
    one = signals_of(2, gain_BR=gain_BR[:1], answer_BR=mark(2))
    alone = make_credit("likelihood_gain")(one)
    beside = torch.tensor([2 * 2.0**2, 2])  # squares and tokens of the other process
    shared = make_credit("likelihood_gain")(replace(one, total=lambda own: own + beside))
    torch.testing.assert_close(shared, together[:1])
    assert not torch.allclose(alone, together[:1])


def test_likelihood_gain_may_reward_the_likelihood_of_the_gold_answer():
    given = {"answer_BR": torch.cat([mark(3, 2), mark(3, 2), mark(3)]), "groups_B": torch.tensor([0, 0, 0])}
    behind_BR = torch.tensor([[0.0, math.exp(-2), 0.0], [0.0, math.exp(-10), 0.0], [0.0, 0.0, 0.0]])
    scorer = TableScorer(torch.full((3,), 0.1), behind_BR)
    signals = signals_of(full_mask(3, 3, 3), [9.0] * 3, **given, gain_BR=torch.zeros(3, 3), score=scorer)
    got_BR = make_credit("likelihood_gain", {"reward": "likelihood"})(signals)
    rewards = torch.tensor([-2.0, -10.0, -30.0])  # the last has no box
    own = ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).tolist()
    assert_rows(got_BR, [own[0], own[0], 0.0], [own[1], own[1], 0.0], [own[2]] * 3)
    assert scorer.asked == [("", "}")]
    unknown = replace(
        signals.readings, gold=replace(signals.readings.gold, score=TableScorer(torch.zeros(3), behind_BR))
    )
    got_BR = make_credit("likelihood_gain", {"reward": "likelihood"})(replace(signals, readings=unknown))
    assert_rows(got_BR, [9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [9.0] * 3)


def test_the_clipped_gains_sum_to_nothing():
    mask_BR = full_mask(5, 3)
    omega_BR = balanced_clip(torch.tensor([[9.0, 0.0, 0.1, 0.2, 0.3], [5.0, 5.0, 5.0, 7.0, 7.0]]), mask_BR)
    assert omega_BR.sum(-1).abs().max() < 1e-6
    assert float(omega_BR[0, 0]) == 1.0
    assert_rows(omega_BR[1:], [0.0] * 5)


def progress_signals(entropy_BR, scorer):
    group = {"groups_B": torch.tensor([0]), "rewards_B": torch.tensor([1.0]), "baselines_B": torch.tensor([0.25])}
    return signals_of(entropy_BR.shape[1], [9.0], entropy_BR=entropy_BR, score=scorer, **group)


def test_progress_pays_each_segment_for_what_it_adds():
    # Of ten tokens the top half by entropy are cut points, 0 2 4 6 8: of 2.5 each two segments, with 3 and 2 of them.
    behind_BR = row(0.0, 0.0, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.7)
    scorer = TableScorer(torch.tensor([0.1]), behind_BR)
    credit = make_credit("progress", {"cut_share": 0.5, "cuts_per_segment": 3, "cue": "A:"})
    gains = [0.1] * 5 + [0.5] * 5  # segments end with tokens 4 and 9
    assert_rows(credit(progress_signals(row(*[1.0, 0.0] * 5), scorer)), [0.75 + 1.2 * gain for gain in gains])
    assert scorer.asked == [("A:", "")]


@pytest.mark.parametrize(("points", "segments"), [(1, 1), (6, 2), (8, 2), (10, 2), (14, 4), (20, 5), (99, 5)])
def test_progress_spreads_its_points_evenly_over_fewer_than_six_segments(points, segments):
    entropy_BR = torch.zeros(1, 1000)
    entropy_BR[0, torch.arange(points) * 10] = torch.arange(points) + 1.0
    # The quantile falls between two entropies: on one of them, how torch rounds would decide.
    credit = make_credit("progress", {"cut_share": (points - 0.5) / 999})
    segments_BR, ends_BR = credit.cut(progress_signals(entropy_BR, TableScorer(torch.zeros(1), entropy_BR)))
    assert int(ends_BR.sum()) == segments == int(segments_BR.max()) + 1
    counts = segments_BR[0, entropy_BR[0] > 0].bincount()
    assert int(counts.max() - counts.min()) <= 1
    assert bool(ends_BR[0, -1])
    assert bool((segments_BR.diff() >= 0).all())


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_delta_weighs_tokens_by_the_side_that_their_gradient_is_on():
    # One dimension; the right response at 1 and 3, the wrong one, with twice the advantage, at -1 and 0.
    gradient_BRD = torch.tensor([[1.0, 3.0], [-1.0, 0.0]])[..., None]
    signals = signals_of(full_mask(2, 2), [1.0, -2.0], gradient_BRD=gradient_BRD)
    # Centroids 2 and -1/2. Margins (v + 1/2)^2 - (v - 2)^2 = 5 v - 15/4: 5/4, 45/4 and, to the other side, 35/4, 15/4.
    spreads = (5.0, 2.5)
    trust = [sigmoid(1.25 / 5), sigmoid(11.25 / 5), sigmoid(8.75 / 2.5), sigmoid(3.75 / 2.5)]
    right = (trust[0] * 1 + trust[1] * 3) / (trust[0] + trust[1])
    wrong = -trust[2] / (trust[2] + trust[3])
    margins = [(v - wrong) ** 2 - (v - right) ** 2 for v in (1, 3, -1, 0)]
    weights = [0.8 + 0.4 * sigmoid(m / spreads[0]) for m in margins[:2]]
    weights += [0.8 + 0.4 * sigmoid(-m / spreads[1]) for m in margins[2:]]
    mean = sum(weights) / 4
    expected = [[w / mean for w in weights[:2]], [-2 * w / mean for w in weights[2:]]]
    assert_rows(make_credit("delta")(signals), *expected)
    assert_rows(make_credit("delta")(replace(signals, advantages_B=torch.ones(2))), [1.0, 1.0], [1.0, 1.0])


def nthr_signals():
    """Three of four are right in the first group; the second has nothing to compare."""
    aligned_BR = torch.tensor([[4.0, 2.0], [1.0, 3.0], [5.0, 5.0], [2.5, 1.5], [9.0, 9.0]])
    group = {
        "token_ids_BR": torch.zeros(5, 2, dtype=torch.long),
        "groups_B": torch.tensor([0, 0, 0, 0, 1]),
        "rewards_B": torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]),
        "baselines_B": torch.tensor([0.75, 0.75, 0.75, 0.75, 0.0]),
    }
    return signals_of(full_mask(2, 2, 2, 2, 2), [1.0, 1.0, 1.0, -3.0, 2.0], align=TableAligner(aligned_BR), **group)


def test_nthr_spares_the_tokens_of_wrong_responses_that_right_ones_share():
    # Means 3, 2, 5, so the anchor is 2; eta = |1 - 2 * 3/4| = 1/2.
    plain = [[1.0, 1.0]] * 3
    assert_rows(make_credit("nthr")(nthr_signals()), *plain, [-1.5, -3.0], [2.0, 2.0])
    assert_rows(make_credit("nthr", {"beta": 0.6})(nthr_signals()), *plain, [-1.5, -1.5], [2.0, 2.0])


def test_thr_learns_where_right_responses_move_and_leans_to_one_side():
    # The anchor is 2, and a wrong response pulls the right ones down where it is aligned with them.
    rows = [[1.1, 0.0], [0.0, 1.1], [1.1, 1.1], [-3 * 0.9, 0.0], [2.0, 2.0]]
    assert_rows(make_credit("thr")(nthr_signals()), *rows)
    other = [[0.9, 0.0], [0.0, 0.9], [0.9, 0.9], [-3 * 1.1, 0.0], [2.0, 2.0]]
    assert_rows(make_credit("thr", {"p": -0.1})(nthr_signals()), *other)


def test_attention_entropy_moves_from_anchors_to_explorers():
    entropy_BR = row(0.1, 0.9, 0.2, 0.8, 0.5)  # ranks 0, 1, 1/4, 3/4, 1/2
    credit = make_credit("attention_entropy", {"strength": 0.4})
    early = [1.4, 0.6, 1.2, 0.8, 1.0]
    for trained, share in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (1.0, -1.0)):
        signals = signals_of(5, row_entropy_BR=entropy_BR, trained=trained)
        assert_rows(credit(signals), [1 + share * (weight - 1) for weight in early])
    assert_rows(credit(signals_of(1, [3.0], row_entropy_BR=row(0.7))), [3.0])


def test_confidence_pays_for_sure_right_answers_and_charges_for_sure_wrong_ones():
    log_prob_BR = torch.tensor([[0.9, 0.4], [0.2, 1.0], [0.8, 0.8], [0.8, 0.2]]).log()  # c: 0.6 0.2 0.8 0.4
    group = {"groups_B": torch.tensor([0, 0, 0, 1]), "rewards_B": torch.tensor([1.0, 0.1, 0.0, 1.0])}
    signals = signals_of(full_mask(2, 1, 2, 2), [1.0, -0.5, -0.5, 0.0], log_prob_BR=log_prob_BR, **group)
    # s c = 0.6 -0.2 -0.8, mean -2/15; half of what stands above it is added
    mean = -0.4 / 3
    shaped = [1 + 0.5 * (0.6 - mean), -0.5 + 0.5 * (-0.2 - mean), -0.5 + 0.5 * (-0.8 - mean), 0.0]
    assert_rows(make_credit("confidence")(signals), *[[value] * 2 for value in shaped])
    assert shaped[2] < shaped[1], "of two errors the surer one is blamed more"


def test_visual_gates_by_dependence_on_the_image_and_keeps_the_sum():
    # log(1 + S) of 0.1, 0.3, 0.5, 1.1 is I of 0, 0.2, 0.4, 1; the third stands at the threshold.
    divergence_BR = row(0.1, 0.3, 0.5, 1.1).expm1().repeat(3, 1)
    divergence_BR[1] = 0.7
    signals = signals_of(
        full_mask(4, 4, 4), [2.0, 3.0, -1.0], divergence_BR=divergence_BR, shown_B=torch.tensor([True, True, False])
    )
    raw = [0.0, 0.2 / 0.4, 1.0, 1 + 2.0]  # of mean 4.5 / 4
    assert_rows(make_credit("visual")(signals), [2 * w / 1.125 for w in raw], [3.0] * 4, [-1.0] * 4)
    half = make_credit("visual", {"threshold": 0.6, "gain": 0.5})(signals)
    raw = [0.0, 0.2 / 0.6, 0.4 / 0.6, 1 + 0.5]
    assert_rows(half[:1], [2 * w / (sum(raw) / 4) for w in raw])
    with pytest.raises(InputError, match="threshold in"):
        make_credit("visual", {"threshold": 1.0})


def test_visual_mask_keeps_what_black_squares_change_and_scales_responses_to_a_mean_of_one():
    log_prob_BR = torch.full((4, 5), -1.0)
    moved_BR = torch.zeros(4, 5)
    moved_BR[0, 0], moved_BR[0, 4] = math.log(2), -math.log(2)  # K = 1 - ln 2 and ln 2 - 1/2
    moved_BR[1, 2] = 30.0  # cut to 20, whose K is cut to 10
    signals = signals_of(
        full_mask(5, 3, 2, 4),
        [1.0, -2.0, 1.0, 5.0],
        log_prob_BR=log_prob_BR,
        blackened_log_prob_BR=log_prob_BR + moved_BR,
        shown_B=torch.tensor([True, True, True, False]),
    )
    # Means 0.5 / 5, 10 / 3 and 0: shares 0.03, 1 and 0.
    highest = 0.9 + 0.1 / (1.03 / 3)
    one, two = 0.9 + (highest - 0.9) * 0.03, highest
    assert (one + two + 0.9) / 3 == pytest.approx(1)
    got_BR = make_credit("visual_mask")(signals)
    assert_rows(got_BR[0:1], [one, 0.0, 0.0, 0.0, one])
    assert_rows(got_BR[1:2, :3], [-2 * two, 0.0, -2 * two])  # ceil(1.2) tokens, of equal ones the earlier
    assert_rows(got_BR[2:3, :2], [0.9, 0.0])
    assert_rows(got_BR[3:4, :4], [5.0] * 4)
    alike = make_credit("visual_mask", {"lowest": 1.0})(signals)
    assert_rows(alike[0:1], [1.0, 0.0, 0.0, 0.0, 1.0])
    with pytest.raises(InputError, match="lowest in"):
        make_credit("visual_mask", {"lowest": 0.0})


def test_visual_robust_boosts_what_depends_on_the_image_and_holds_under_noise():
    divergence_BR = row(0.0, 0.5, 1.0, 0.9, 0.1).expm1()  # I as log(1 + S)
    log_prob_BR = torch.full((1, 5), -1.0)
    noisy_BR = log_prob_BR + row(0.0, 0.0, -2.0, 0.1, 5.0)  # the third and the last do not hold
    shown = {"noisy_log_prob_BR": noisy_BR, "log_prob_BR": log_prob_BR, "divergence_BR": divergence_BR}
    signals = signals_of(5, [-2.0], shown_B=torch.tensor([True]), **shown)
    scores = [0.0, 0.5, math.exp(-2), 0.9 * math.exp(-0.1), 0.1 * math.exp(-5)]
    credit = make_credit("visual_robust")
    assert_rows(credit.scores(signals), scores)
    assert_rows(credit(signals), [-2.0, -3.0, -2.0, -3.0, -2.0])
    assert_rows(credit(signals_of(5, [-2.0], shown_B=torch.tensor([False]), **shown)), [-2.0] * 5)


@pytest.mark.parametrize(("name", "need"), [("entropy", "logits"), ("local", "heads"), ("progress", "group")])
def test_a_missing_signal_is_named(name, need):
    with pytest.raises(InputError, match=f"needs {need}"):
        make_credit(name)(signals_of(4))
