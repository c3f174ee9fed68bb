"""Worth, mixes and per-token truth of minibatches that are written by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.checks.meter.minibatch import Measured, ceilings
from flowtracer.checks.meter.rollouts import Group, as_batch
from flowtracer.checks.meter.strategies import ORACLES, parse_strategies, place_oracles
from flowtracer.checks.meter.truth import auroc_of, correlation_of, ranks, token_truths
from flowtracer.checks.meter.worth import best_mix, gains, worths
from flowtracer.credit.flow import FlowCredit
from flowtracer.errors import InputError
from flowtracer.intervals import ratio_of_means
from flowtracer.tasks import LabelledTask, Planted
from tiny import tiny_tokenizer

NAMES = ["uniform", "a", "b"]


def minibatches(count=12, size=40, *, gradients=None, seed=0, tokens=6):
    """Minibatches whose gradients are drawn at random around given means, with g* along the first axis."""
    generator = torch.Generator().manual_seed(seed)
    means_KN = torch.zeros(3, size) if gradients is None else gradients
    made = []
    for _ in range(count):
        noise_KN = torch.randn(7, size, generator=generator)
        gradients_KN = torch.cat([means_KN, torch.zeros(4, size)]) + noise_KN
        slopes_2BR = torch.randn(2, 4, tokens, generator=generator)
        made.append(
            Measured(
                inner_K2=gradients_KN[:, :1].expand(-1, 2),
                norm_K=gradients_KN.norm(dim=1),
                adam_inner_K2=2 * gradients_KN[:, :1].expand(-1, 2),
                adam_norm_K=gradients_KN.norm(dim=1),
                gram_KK=gradients_KN @ gradients_KN.T,
                ids_BR=torch.zeros(4, tokens, dtype=torch.long),
                mask_BR=torch.ones(4, tokens, dtype=torch.bool),
                rewards_B=torch.tensor([1.0, 0.0, 1.0, 0.0]),
                advantages_B=torch.tensor([1.0, -1.0, 0.5, -0.5]),
                weights_B=torch.full((4,), 0.1),
                slopes_2BR=slopes_2BR,
                noise_BR=torch.randn(4, tokens, generator=generator),
                advantages_SBR=torch.ones(3, 4, tokens),
                scores_SBR=torch.randn(3, 4, tokens, generator=generator),
            )
        )
    return made


def along(*lengths, size=40):
    """Mean gradients of so many lengths along g*."""
    return torch.tensor(lengths)[:, None] * torch.eye(size)[0]


def by_name(found):
    return {(worth.name, worth.kind): worth for worth in found}


def test_uniform_is_worth_exactly_itself_and_a_longer_stride_more():
    found = by_name(worths(minibatches(count=100, gradients=along(2.0, 4.0, 1.0)), NAMES))
    uniform = found["uniform", "strategy"]
    assert (uniform.plain.mean, uniform.plain.low, uniform.plain.high) == (1, 1, 1)
    assert found["a", "strategy"].plain.low > 1 > found["b", "strategy"].plain.high
    assert found["a", "strategy"].rollouts == pytest.approx(found["a", "strategy"].plain.mean ** 2)


@given(scale=st.floats(0.01, 100))
def test_worth_does_not_depend_on_the_length_of_the_step(scale):
    measured = minibatches(gradients=along(2.0, 3.0, 1.0))
    expected = gains(measured, 1)
    scaled = [
        Measured(**{**fields_of(each), "inner_K2": each.inner_K2 * scale, "norm_K": each.norm_K * scale})
        for each in measured
    ]
    np.testing.assert_allclose(gains(scaled, 1), expected, rtol=1e-5)


def fields_of(measured):
    return {name: getattr(measured, name) for name in Measured.__dataclass_fields__}


def test_a_ceiling_is_measured_by_the_half_that_did_not_choose_it():
    """Along noise alone the half that chose flatters it; the other half does not."""
    generator = torch.Generator().manual_seed(0)
    advantages_B, mask_BR = torch.ones(64), torch.ones(64, 20, dtype=torch.bool)
    slopes_2BR = torch.randn(2, 64, 20, generator=generator)
    chosen_4BR = ceilings(advantages_B, slopes_2BR, mask_BR)
    own = [float((chosen_4BR[place] * slopes_2BR[place % 2]).sum()) for place in range(4)]
    other = [float((chosen_4BR[place] * slopes_2BR[1 - place % 2]).sum()) for place in range(4)]
    assert min(own) > 100
    assert max(map(abs, other)) < 100


def test_the_best_mix_is_closed_form_and_not_flattered():
    """Of two orthogonal halves of g* the mix takes both; of pure noise it makes nothing."""
    good = torch.zeros(3, 40)
    good[0, :2], good[1, 0], good[2, 1] = 3, 6, 6
    measured = minibatches(count=40, gradients=good)
    measured = [Measured(**{**fields_of(m), "inner_K2": m.gram_KK[:, :1].clone().expand(-1, 2)}) for m in measured]
    mix = best_mix(measured, NAMES, ["a", "b"])
    assert mix is not None
    assert sum(map(abs, mix.coefficients.values())) == pytest.approx(1)
    assert min(mix.coefficients.values()) > 0.4
    single = by_name(worths(measured, NAMES))
    assert mix.worth.plain.mean > 1.2 * single["a", "strategy"].plain.mean
    noise = best_mix(minibatches(count=40, gradients=along(2.0, 0.0, 0.0)), NAMES, ["a", "b"])
    assert noise is not None
    assert noise.worth.plain.low < 0  # leaving one out errs on the low side
    assert best_mix(measured, NAMES, ["a"]) is None


def test_worth_needs_uniform():
    with pytest.raises(InputError, match="uniform"):
        worths(minibatches(), ["flow", "a", "b"])


@given(
    scores=st.lists(st.integers(0, 4), min_size=2, max_size=12),
    contributions=st.lists(st.integers(-3, 3), min_size=2, max_size=12),
)
def test_auroc_is_the_chance_written_out(scores, contributions):
    n = min(len(scores), len(contributions))
    score_N, contribution_N = np.array(scores[:n], dtype=float), np.array(contributions[:n], dtype=float)
    won = total = 0.0
    for i in range(n):
        for j in range(n):
            if contribution_N[i] > 0 > contribution_N[j]:
                weight = -contribution_N[i] * contribution_N[j]
                won += weight * ((score_N[i] > score_N[j]) + 0.5 * (score_N[i] == score_N[j]))
                total += weight
    found = auroc_of(ranks(score_N), contribution_N)
    assert np.isnan(found) if total == 0 else found == pytest.approx(won / total)


def test_rank_correlation_is_one_for_any_rising_map():
    values_N = np.array([3.0, -1.0, 2.0, 8.0])
    assert correlation_of(ranks(values_N), ranks(np.exp(values_N))) == pytest.approx(1)
    assert correlation_of(ranks(values_N), ranks(-values_N)) == pytest.approx(-1)
    assert np.isnan(correlation_of(ranks(values_N), np.ones(4)))


def test_a_score_that_is_the_truth_is_recognised_and_its_curve_rises():
    measured = [
        Measured(
            **{**fields_of(m), "scores_SBR": torch.stack([m.contributions_BR(), -m.contributions_BR(), m.noise_BR])}
        )
        for m in minibatches(count=16, tokens=40)
    ]
    right, wrong, nothing = token_truths(measured, NAMES, group=2)
    assert right.auroc.mean == pytest.approx(1)
    assert wrong.auroc.mean == pytest.approx(0)
    assert abs(nothing.correlation.mean) < 0.1 < right.correlation.mean
    assert right.curve[-1].low > 0 > right.curve[0].high
    assert wrong.curve[0].low > 0 > wrong.curve[-1].high


def test_a_silent_strategy_counts_only_where_it_speaks():
    measured = minibatches(count=4)
    for each in measured:
        each.scores_SBR[1, 1:] = torch.nan
        each.scores_SBR[2] = torch.nan
    some, none = token_truths(measured, NAMES, group=2)[1:]
    assert some.auroc.items <= 4
    assert none.auroc.items == 0


def test_a_ratio_of_means_is_paired():
    one_N = np.random.default_rng(0).random(30)
    found = ratio_of_means(3 * one_N, one_N)
    assert (found.low, found.mean, found.high) == pytest.approx((3, 3, 3))
    assert np.isnan(ratio_of_means(one_N, np.zeros(30)).mean)


def test_strategies_with_options_on_one_line():
    found = parse_strategies("flow:keep=bottom,ratio=0.2,layers=[0,1], position")
    assert list(found) == ["flow:keep=bottom,ratio=0.2,layers=[0,1]", "position"]
    assert found["flow:keep=bottom,ratio=0.2,layers=[0,1]"] == FlowCredit(keep="bottom", ratio=0.2, layers=[0, 1])
    for wrong in ("", "flaw", "flow:keep=sideways"):
        with pytest.raises(InputError):
            parse_strategies(wrong)


def test_oracles_know_planted_steps_of_any_response():
    task, tokenizer = Planted(), tiny_tokenizer()
    assert isinstance(task, LabelledTask)
    (problem,) = task.problems("train", 1)
    asked = problem.facts["chains"][problem.facts["asked"]][0]["variable"]
    other = problem.facts["chains"][1 - problem.facts["asked"]][0]["variable"]
    text = f"{asked}=3, so.\n{other}=4, so.\n<answer>3</answer>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    group = Group(problem=problem, prompt_ids=[5], response_ids=[ids, ids[:2]], rewards=[1.0, 0.0])
    batch = as_batch([group], torch.device("cpu"))
    placed = place_oracles(task, tokenizer, batch)
    assert tuple(placed) == ORACLES
    advantage = float(batch.advantages_B()[0])
    gate_R, boost_R = (placed[name].advantages_BR[0] / advantage for name in ("oracle_gate", "oracle"))
    left_out = "".join(tokenizer.decode([token]) for token, kept in zip(ids, gate_R, strict=True) if kept == 0)
    assert left_out.strip() == f"{other}=4, so."
    torch.testing.assert_close(boost_R, 1 + 0.5 * gate_R)
