"""Each strategy on a case worked by hand."""

import math

import pytest
import torch

from credit_cases import TableScorer, full_mask, signals_of
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


def test_coupled_hands_half_of_an_anchors_bonus_to_its_opening():
    signals = signals_of(5, local_distance_BR=row(*WAAD), future_attention_BR=row(*FAI))
    # Anchors 2 and 4. The median WAAD is 1.5, so 4, with 1.0, lies within a chunk; the nearest opening before it is 3.
    assert_rows(make_credit("coupled")(signals), [1.0, 1.0, 1.5, 1.25, 1.25])
    assert_rows(make_credit("coupled", {"alpha": 0.0})(signals), [1.0, 1.0, 1.5, 1.0, 1.5])
    assert_rows(make_credit("coupled", {"alpha": 1.0, "gamma": 2.0})(signals), [1.0, 1.0, 2.0, 2.0, 1.0])


def test_gradient_boosts_the_most_sensitive_before_the_answer():
    given = {"answer_BR": mark(6, 4), "reasoning_BR": mark(6, 0, 1, 2, 3)}
    saliency = {"saliency_BR": row(0.1, 0.4, 0.3, 0.2, 9.0, 9.0), "saliency_before_BR": row(*[0.0] * 6)}
    signals = signals_of(6, **given, **saliency)
    assert_rows(make_credit("gradient")(signals), [1.0, 1.5, 1.5, 1.5, 1.0, 1.0])  # ceil(0.4 * 6) = 3


def test_grail_blames_by_z_score_where_the_advantage_is_not_positive():
    n = 7  # reasoning 0 1 2, the box's opening 3, inside 4, what follows 5 6
    given = {"answer_BR": mark(n, 4).expand(2, -1), "reasoning_BR": mark(n, 0, 1, 2).expand(2, -1)}
    before_BR = torch.tensor([[math.e, math.e**3, math.e**5, 99.0, 99.0, 99.0, 99.0]] * 2)
    signals = signals_of(full_mask(n, n), [1.0, -1.0], **given, saliency_BR=before_BR, saliency_before_BR=before_BR)
    z = math.sqrt(1.5)  # logs 1 3 5: mean 3, deviation sqrt(8 / 3)
    blamed = [max(1 - z / 2, 0.5), 1.0, 1 + z / 2, 1.0, 5.0, 1.0, 1.0]
    assert_rows(make_credit("grail")(signals), [1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0], [-x for x in blamed])


def test_grail_without_a_box_is_plain_grpo():
    given = {"answer_BR": mark(3), "reasoning_BR": mark(3)}
    signals = signals_of(3, [-1.0], **given, saliency_BR=row(1.0, 2.0, 3.0), saliency_before_BR=row(1.0, 2.0, 3.0))
    assert_rows(make_credit("grail")(signals), [-1.0] * 3)


def test_oar_damps_below_the_quantile_and_raises_above_it():
    # log1p(I) = 0 1 2 3 4 over the reasoning: x = 0, 1/4, 1/2, 3/4, 1; the 0.4 quantile, place 1.6 of 0..4, is 0.4
    influence = [math.expm1(k) for k in range(5)] + [50.0]
    given = {"answer_BR": mark(6, 5), "reasoning_BR": mark(6, 0, 1, 2, 3, 4)}
    signals = signals_of(6, [2.0], **given, influence_BR=row(*influence))
    raw = [0.1, 0.25 / 0.4, 1 + 2 * 0.1 / 0.6, 1 + 2 * 0.35 / 0.6, 3.0, 1.0]
    mean = sum(raw) / 6
    assert_rows(make_credit("oar")(signals), [2 * w / mean for w in raw])
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


def test_likelihood_gain_moves_the_advantage_towards_what_serves_the_gold_answer():
    # Centred: -1.5 -0.5 0.5 1.5, root mean square sqrt(5)/2; nothing is clipped beyond +-1 but the ends.
    signals = signals_of(full_mask(4, 4), [2.0, -2.0], gain_BR=torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 2))
    middle = 0.5 / (math.sqrt(5) / 2)
    omega = [-1.0, -middle, middle, 1.0]  # symmetric, so tau is 0
    got_BR = make_credit("likelihood_gain")(signals)
    assert_rows(got_BR, [2 + 0.5 * 2 * w for w in omega], [-2 + 0.5 * 2 * w for w in omega])


def test_the_clipped_gains_sum_to_nothing():
    mask_BR = full_mask(5, 3)
    omega_BR = balanced_clip(torch.tensor([[9.0, 0.0, 0.1, 0.2, 0.3], [5.0, 5.0, 5.0, 7.0, 7.0]]), mask_BR)
    assert omega_BR.sum(-1).abs().max() < 1e-6
    assert float(omega_BR[0, 0]) == 1.0
    assert_rows(omega_BR[1:], [0.0] * 5)


def test_progress_pays_each_segment_for_what_it_adds():
    # Of ten tokens the top half by entropy are cut points: 0 2 4 6 8, and two of them close a segment.
    entropy_BR = row(*[1.0, 0.0] * 5)
    behind_BR = row(0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.7, 0.0, 0.0, 0.6)
    scorer = TableScorer(torch.tensor([0.1]), behind_BR)
    group = {"token_ids_BR": mark(10).long(), "groups_B": torch.tensor([0])}
    rewards = {"rewards_B": torch.tensor([1.0]), "baselines_B": torch.tensor([0.25])}
    signals = signals_of(10, [9.0], entropy_BR=entropy_BR, log_prob_BR=entropy_BR, score=scorer, **group, **rewards)
    credit = make_credit("progress", {"cut_share": 0.5, "cuts_per_segment": 2, "cue": "A:"})
    gains = [0.1] * 3 + [0.5] * 4 + [-0.1] * 3  # segments end with tokens 2, 6 and 9
    assert_rows(credit(signals), [0.75 + 1.2 * gain for gain in gains])
    assert scorer.cues == ["A:"]


def test_attention_entropy_moves_from_anchors_to_open_tokens():
    entropy_BR = row(0.1, 0.9, 0.2, 0.8, 0.5)
    for trained, expected in ((0.0, [1.5, 1.0, 1.5, 1.0, 1.0]), (1.0, [1.0, 1.5, 1.0, 1.5, 1.0])):
        signals = signals_of(5, received_BR=row(*[0.0] * 5), row_entropy_BR=entropy_BR, trained=trained)
        assert_rows(make_credit("attention_entropy")(signals), expected)
    half = signals_of(5, received_BR=row(*[0.0] * 5), row_entropy_BR=entropy_BR, trained=0.5)
    assert_rows(make_credit("attention_entropy")(half), [1.5, 1.5, 1.0, 1.0, 1.0])


def test_confidence_shapes_the_reward_of_the_whole_response():
    log_prob_BR = torch.tensor([[math.log(0.9), math.log(0.4)], [math.log(0.2), 0.0]])
    group = {"groups_B": torch.tensor([0, 0]), "rewards_B": torch.tensor([1.0, 0.0])}
    signals = signals_of(
        full_mask(2, 1),
        [1.0, -1.0],
        entropy_BR=log_prob_BR,
        log_prob_BR=log_prob_BR,
        token_ids_BR=torch.zeros(2, 2, dtype=torch.long),
        baselines_B=torch.tensor([0.5, 0.5]),
        **group,
    )
    # Confidences 0.6 and 0.2 stand 0.2 above and below their mean.
    assert_rows(make_credit("confidence")(signals), [1.1, 1.1], [-1.1, -1.1])


@pytest.mark.parametrize(("name", "need"), [("entropy", "logits"), ("local", "heads"), ("progress", "group")])
def test_a_missing_signal_is_named(name, need):
    with pytest.raises(InputError, match=f"needs {need}"):
        make_credit(name)(signals_of(4))
