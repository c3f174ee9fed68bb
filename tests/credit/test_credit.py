import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.attention import capacity as capacities
from flowtracer.credit import Credit, Reads, Signals, credit_factors, make_credit, needs_of, reads_of
from flowtracer.credit.base import boost_top
from flowtracer.credit.naming import named_options, split_names
from flowtracer.credit.signals import CAPACITIES
from flowtracer.errors import InputError


def full_mask(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_flow_boosts_the_top_tokens_by_throughput():
    throughput_BR = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]])
    weights_BR = credit_factors("flow", full_mask(5), throughput_BR=throughput_BR)
    assert weights_BR.tolist() == [[1.0, 1.5, 1.0, 1.5, 1.0]]  # ceil(0.4 * 5) = 2


def test_bottom_boosts_the_other_end():
    throughput_BR = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3]])
    options = {"keep": "bottom", "gamma": 2.0}
    weights_BR = credit_factors("flow", full_mask(5), throughput_BR=throughput_BR, options=options)
    assert weights_BR.tolist() == [[2.0, 1.0, 2.0, 1.0, 1.0]]


def test_a_response_without_a_trace_is_plain_grpo():
    throughput_BR = torch.rand(2, 5)
    traced_B = torch.tensor([False, True])
    weights_BR = credit_factors("flow", full_mask(5, 5), throughput_BR=throughput_BR, traced_B=traced_B)
    assert (weights_BR[0] == 1).all()
    assert (weights_BR[1] > 1).sum() == 2


@pytest.mark.parametrize(
    ("tokens", "ratio", "boosted"), [(12, 0.4, 5), (5, 0.4, 2), (1, 0.4, 1), (30, 0.1, 3), (10, 1.0, 10)]
)
def test_number_of_boosted_tokens(tokens, ratio, boosted):
    weights_BR = boost_top(torch.rand(1, tokens), full_mask(tokens), ratio=ratio, gamma=1.5)
    assert int((weights_BR > 1).sum()) == boosted


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any),
    st.integers(0, 2**32),
    st.floats(0.05, 1),
)
def test_only_counted_tokens_are_ranked_and_weighted(lengths, seed, ratio):
    generator = torch.Generator().manual_seed(seed)
    mask_BR = full_mask(*lengths)
    scores_BR = torch.randn(mask_BR.shape, generator=generator)
    weights_BR = boost_top(scores_BR, mask_BR, ratio=ratio, gamma=1.5)
    assert (weights_BR[~mask_BR] == 1).all()
    for row, n in enumerate(lengths):
        boosted = weights_BR[row] > 1
        assert int(boosted.sum()) == math.ceil(ratio * n - 1e-9)
        if boosted.any() and not boosted[:n].all():
            assert scores_BR[row][boosted].min() >= scores_BR[row, :n][~boosted[:n]].max()


def test_ties_go_to_the_earlier_token():
    weights_BR = boost_top(torch.zeros(1, 5), full_mask(5), ratio=0.4, gamma=1.5)
    assert weights_BR.tolist() == [[1.5, 1.5, 1.0, 1.0, 1.0]]


def test_padding_to_a_longer_batch_changes_no_weight():
    scores_R = torch.rand(1, 7)
    alone = boost_top(scores_R, full_mask(7), ratio=0.4, gamma=1.5)
    padded = torch.nn.functional.pad(scores_R, (0, 5), value=9.0)
    assert torch.equal(boost_top(padded, full_mask(7, 12)[:1], ratio=0.4, gamma=1.5)[:, :7], alone)


def test_random_is_reproducible_by_seed_and_independent_of_the_batch():
    mask_BR = full_mask(20, 20, 20)
    credit = make_credit("random")
    first = credit(Signals(mask_BR=mask_BR, advantages_B=torch.ones(3), seeds_B=(7, 8, 9)))
    second = credit(Signals(mask_BR=mask_BR[:1], advantages_B=torch.ones(1), seeds_B=(8,)))
    assert torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])
    assert ((first > 1).sum(-1) == 8).all()


def test_random_draws_do_not_depend_on_the_width_of_the_batch():
    credit = make_credit("random")
    narrow = credit.scores(Signals(mask_BR=full_mask(20), advantages_B=torch.ones(1), seeds_B=(8,)))
    wide = credit.scores(Signals(mask_BR=full_mask(20, 90)[:1], advantages_B=torch.ones(1), seeds_B=(8,)))
    assert torch.equal(wide[:, :20], narrow)


def test_uniform_is_one_everywhere():
    assert (credit_factors("uniform", full_mask(3, 8)) == 1).all()


def test_a_strategy_of_ones_own():
    def first_half(signals: Signals) -> torch.Tensor:
        early_BR = signals.mask_BR.cumsum(-1) <= signals.mask_BR.sum(-1, keepdim=True) / 2
        return signals.weighted(torch.where(early_BR, 2.0, 1.0))

    strategy: Credit = first_half
    assert credit_factors(strategy, full_mask(4)).tolist() == [[2.0, 2.0, 1.0, 1.0]]
    assert needs_of(strategy) == frozenset()


def test_a_need_that_does_not_exist_is_refused():
    def strategy(signals: Signals) -> torch.Tensor:
        return signals.weighted(torch.ones(signals.mask_BR.shape))

    strategy.needs = {"flow", "attentoin"}
    with pytest.raises(InputError, match=r"needs among .*'attention'.* got \['attentoin'\]"):
        needs_of(strategy)


def test_a_typo_in_a_strategy_of_ones_own_is_an_error():
    def strategy(signals: Signals) -> torch.Tensor:
        return signals.weighted(signals.logits.entropy_BR)

    strategy.need = {"logits"}
    with pytest.raises(InputError, match="attributes of a strategy among needs, reads, scores, speaks, got need"):
        reads_of(strategy)
    del strategy.need
    strategy.needs, strategy.layers = {"logits"}, [3]
    with pytest.raises(InputError, match="got layers"):
        reads_of(strategy)
    with pytest.raises(InputError, match="at among token, prediction, got 'end'"):
        Reads(needs={"flow"}, at="end")
    with pytest.raises(InputError, match="target among answer, box, got 'tag'"):
        Reads(needs={"answer"}, target="tag")
    with pytest.raises(InputError, match=r"Reads\(needs=\.\.\., \.\.\.\), got set"):
        reads_of(Reading({"flow"}))


class Reading:
    """A strategy of one's own that says what it reads."""

    def __init__(self, reads):
        self.reads = reads

    def __call__(self, signals):
        return signals.weighted(torch.ones(signals.mask_BR.shape))


def test_a_strategy_may_say_by_what_it_reads():
    reads = Reads(needs={"flow"}, layers=[3, 4], at="prediction")
    assert reads_of(Reading(reads)) == Reads(needs=frozenset({"flow"}), layers=(3, 4), at="prediction")
    assert needs_of(Reading(reads)) == {"flow"}
    assert reads_of(make_credit("grail")).target == "box"


def test_where_flow_ends_follows_from_its_graph():
    assert reads_of(make_credit("flow")) == Reads(needs={"flow"}, at="token")
    layered = reads_of(make_credit("flow", {"graph": "layered", "capacity": "alti"}))
    assert (layered.at, layered.graph, layered.capacity, layered.ends) == ("prediction", "layered", "alti", "anywhere")
    assert reads_of(make_credit("shuffled", {"graph": "layered", "at": "token"})).at == "token"


def test_credit_takes_the_capacities_that_a_forward_shows():
    forward_only = {name for name in capacities.CAPACITIES if "gradient" not in capacities.asked(name, "tokens")}
    assert set(CAPACITIES) == forward_only


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("flow,position", ["flow", "position"]),
        ("flow:keep=bottom,ratio=0.2,layers=[0,1], position", ["flow:keep=bottom,ratio=0.2,layers=[0,1]", "position"]),
        ("flow:capacity=alti:graph=layered,entropy", ["flow:capacity=alti:graph=layered", "entropy"]),
        (" , ", []),
    ],
)
def test_names_are_split(text, names):
    assert split_names(text) == names


def test_options_behind_a_name_are_words_or_json():
    assert named_options("flow") == ("flow", {})
    expected = ("flow", {"capacity": "alti", "graph": "layered", "ratio": 0.2, "layers": [0, 1]})
    assert named_options("flow:capacity=alti:graph=layered,ratio=0.2,layers=[0,1]") == expected


def test_a_signal_of_another_name_is_no_signal():
    signals = Signals(mask_BR=full_mask(3), advantages_B=torch.ones(1), seeds_B=(0,))
    with pytest.raises(AttributeError, match="logit"):
        signals.logit  # noqa: B018
    with pytest.raises(InputError, match=r"this credit needs logits; name it in its needs"):
        signals.logits  # noqa: B018


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flwo", {}, "among .*flow.*random.*uniform"),
        ("flow", {"ratio": 0}, "ratio"),
        ("flow", {"gamma": float("nan")}, "gamma"),
        ("flow", {"power": 2}, "power"),
        ("flow", {"keep": "middle"}, "keep among top, bottom"),
        ("flow", {"sign": "plus"}, "sign among both, positive, negative"),
        ("flow", {"at": "sentence"}, "at among token, prediction"),
        ("shuffled", {"at": "sentence"}, "at among token, prediction"),
        ("flow", {"capacity": "colour"}, "capacity among attention, value, alti, got 'colour'"),
        ("flow", {"capacity": "gradient"}, "got 'gradient', which takes a backward pass"),
        ("shuffled", {"graph": "round"}, "graph among tokens, layered"),
        ("flow", {"ends": "nowhere"}, "ends among anywhere, question"),
        ("entropy_8020", {"rho": 0.0}, "rho"),
        ("coupled", {"alpha": 2.0}, "alpha"),
        ("coupled", {"sign": "plus"}, "sign among both, positive, negative"),
        ("attention_entropy", {"strength": 1.5}, "strength"),
        ("grail", {"target": "tag"}, "target among answer, box"),
        ("oar", {"quantile": 0.0}, "quantile"),
        ("oar", {"beta": -1.0}, "beta"),
        ("oar", {"variant": "paper"}, "variant among oar, grail"),
        ("delta", {"lowest": 1.3}, "lowest <= highest"),
        ("nthr", {"beta": 0.0}, "beta above 0"),
        ("thr", {"p": 1.0}, "p between -1 and 1"),
        ("likelihood_gain", {"weight": -0.5}, "weight"),
        ("likelihood_gain", {"reward": "binary"}, "reward among given, likelihood"),
        ("progress", {"cuts_per_segment": 0}, "cuts_per_segment"),
        ("progress", {"weight": float("inf")}, "weight"),
        ("confidence", {"weight": float("nan")}, "weight"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        make_credit(name, options)


def test_flow_without_throughput_is_refused():
    with pytest.raises(InputError, match="needs flow"):
        credit_factors("flow", full_mask(3))
