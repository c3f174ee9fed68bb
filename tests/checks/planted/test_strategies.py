"""Strategies against planted truth, with nano and with strategies that know it."""

import pytest
import torch

from flowtracer.checks.planted import faithfulness, strategies_by_name
from flowtracer.checks.planted.cases import work_case
from flowtracer.credit import of_text
from flowtracer.errors import InputError
from flowtracer.model.load import load_model
from flowtracer.tasks import Countdown, Planted
from tiny import tiny_model, tiny_tokenizer

TASK = Planted()
N = 12


@pytest.fixture(scope="module")
def nano():
    return load_model("nano")


@pytest.fixture(scope="module")
def everything(nano):
    seen = []
    result = faithfulness(*nano, TASK, TASK.problems("test", N), bands=True, group=3, on_problems=seen.append)
    assert sum(seen) == result.problems == result.worked == N
    return result


def rows_of(result):
    return {(row.key.name, row.key.by, row.key.band): row for row in result.rows}


def test_every_strategy_is_judged(everything):
    rows = rows_of(everything)
    assert {name for name, by, _ in rows if by == "credit"} == set(of_text())
    scored = {"attention", "attention_entropy", "correlation", "entropy", "flow", "global", "gradient", "grail"}
    scored |= {"local", "oar", "position", "random", "shuffled", "flow_contrast", "free_flow"}
    assert {name for name, by, _ in rows if by == "score"} <= scored
    assert scored - {name for name, by, _ in rows if by == "score"} <= {"correlation", "flow_contrast"}
    for (_, by, _), row in rows.items():
        assert 0 <= row.steps.low <= row.steps.mean <= row.steps.high <= 1
        assert by == "score" or row.steps.items == everything.right


@pytest.mark.parametrize("name", ["uniform", "confidence", "grail"])
def test_credit_that_is_flat_on_a_right_response_says_nothing(everything, name):
    row = rows_of(everything)[name, "credit", ""]
    assert [(i.low, i.mean, i.high) for i in (row.steps, row.step_means, row.tokens)] == [(0.5, 0.5, 0.5)] * 3


def test_the_strategies_and_the_bands_are_judged_alike(everything):
    rows = rows_of(everything)
    for strategy, signal in (("flow", "flow to token"), ("attention", "attention received")):
        ours, theirs = rows[strategy, "score", ""], rows[signal, "signal", "middle"]
        for level in ("steps", "step_means", "tokens"):
            assert getattr(ours, level).mean == pytest.approx(getattr(theirs, level).mean, abs=0.01)


class Oracle:
    """Knows which tokens are needed, by the seed of the response."""

    def __init__(self, tokenizer, problems, sign=1.0, needs=()):
        cases = [work_case(tokenizer, TASK, problem) for problem in problems]
        self.needed = {case.seed: case.steps_SR[case.needed_S].any(0) for case in cases}
        self.needs = set(needs)
        self.sign = sign

    def __call__(self, signals):
        if "group" in self.needs:
            group = signals.group
            assert group.groups_B.bincount().unique().tolist() == [4]
            assert torch.equal(group.rewards_B.view(-1, 4).mean(1).repeat_interleave(4), group.baselines_B)
            assert bool((group.rewards_B[::4] == 1).all()), "the worked response is right"
            assert group.token_ids_BR.shape == signals.mask_BR.shape
        factors_BR = torch.ones(signals.mask_BR.shape)
        for row, seed in enumerate(signals.seeds_B):
            if seed in self.needed:
                needed_R = torch.from_numpy(self.needed[seed])
                factors_BR[row, : len(needed_R)] += self.sign * needed_R
        return signals.weighted(factors_BR)


def test_what_knows_the_truth_is_at_one_with_and_without_a_group(nano):
    problems = TASK.problems("test", N)
    strategies = {
        "oracle": Oracle(nano[1], problems),
        "group": Oracle(nano[1], problems, needs=["group"]),
        "worst": Oracle(nano[1], problems, sign=-0.5),
    }
    result = faithfulness(*nano, TASK, problems, strategies=strategies, group=4)
    assert [(row.key.name, row.key.by) for row in result.rows] == [(name, "credit") for name in strategies]
    assert [row.steps.mean for row in result.rows] == [1.0, 1.0, 0.0]
    assert [row.tokens.mean for row in result.rows] == [1.0, 1.0, 0.0]


def test_a_strategy_that_has_nothing_to_say_counts_for_its_credit_alone(nano):
    problems = TASK.problems("test", N)
    result = faithfulness(*nano, TASK, problems, strategies=["correlation"], group=2)
    rows = rows_of(result)
    spoken = rows["correlation", "score", ""].steps.items if ("correlation", "score", "") in rows else 0
    assert spoken < rows["correlation", "credit", ""].steps.items == result.right


def test_on_countdown_position_gives_the_truth_away(nano):
    task = Countdown(brief=True, min_numbers=3, max_numbers=3, max_value=20)
    result = faithfulness(*nano, task, task.problems("test", 20), strategies=["position", "uniform"])
    rows = rows_of(result)
    assert result.worked < 20
    assert rows["position", "score", ""].step_means.mean == 1.0
    assert rows["uniform", "credit", ""].steps.mean == 0.5


def test_mistakes_are_named(nano):
    problems = TASK.problems("test", 3)
    with pytest.raises(InputError, match="expected a credit among"):
        faithfulness(*nano, TASK, problems, strategies=["flaw"])
    with pytest.raises(InputError, match="group of at least 2"):
        faithfulness(*nano, TASK, problems, group=1)
    with pytest.raises(InputError, match="none right"):
        faithfulness(tiny_model(), tiny_tokenizer(), TASK, problems, strategies=["uniform"])


def test_strategies_are_named_with_their_options():
    found = strategies_by_name(["flow:capacity=alti:graph=layered", "grail", "grail:target=box"])
    flow, grail, boxed = found.values()
    assert (flow.capacity, flow.graph, grail.target, boxed.target) == ("alti", "layered", "answer", "box")
