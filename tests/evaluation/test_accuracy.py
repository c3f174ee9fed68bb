"""Responses and intervals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowtracer.errors import InputError
from flowtracer.evaluation.accuracy import accuracy, gain, judge, respond
from flowtracer.model.generate import Sampling, _ByOwnNumbers, _Prompt, sample
from flowtracer.model.load import load_model
from flowtracer.tasks import Planted
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def nano():
    return load_model("nano")


@pytest.fixture(scope="module")
def problems():
    return Planted(chains=2, length=2).problems("test", 12)


def test_greedy_responses_do_not_depend_on_the_batch(nano, problems):
    together = respond(*nano, problems)
    assert respond(*nano, problems, batch_size=5) == together
    assert respond(*nano, problems[::-1], batch_size=1) == together[::-1]
    assert all(response.endswith("</answer>") for response in together)


def test_sampling_is_seeded_and_leaves_the_global_state_alone(nano, problems):
    state = torch.random.get_rng_state()
    nano[0].train()
    one, same, other = (respond(*nano, problems, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert torch.equal(torch.random.get_rng_state(), state)
    assert nano[0].training
    nano[0].eval()


def test_a_response_is_cut_at_its_longest(nano, problems):
    tokenizer = nano[1]
    for response in respond(*nano, problems, max_new_tokens=5):
        assert len(tokenizer(response)["input_ids"]) == 5


def test_judging_is_the_tasks(problems):
    task = Planted(chains=2, length=2)
    verdicts = judge(task, problems[:2], [f"<answer>{problems[0].gold}</answer>", "hm"])
    assert [verdict.correct for verdict in verdicts] == [True, False]


def test_without_a_chat_template(problems):
    tokenizer = tiny_tokenizer().__class__(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    with pytest.raises(InputError, match="chat template"):
        respond(tiny_model(), tokenizer, problems)


def test_wilson_by_hand():
    # Wilson's interval of 8 of 10, as in Brown, Cai and DasGupta (2001).
    estimate = accuracy([True] * 8 + [False] * 2)
    assert (estimate.mean, estimate.items) == (0.8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert estimate.percent() == "80.0 % [49.0, 94.3]"


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_an_accuracy_lies_in_its_interval(correct):
    estimate = accuracy(correct)
    tiny = 1e-12  # of rounding
    assert -tiny <= estimate.low <= estimate.mean + tiny
    assert estimate.mean - tiny <= estimate.high <= 1 + tiny


def test_a_gain_is_paired():
    before = [True, False] * 100
    assert gain(before, before) == gain(before, list(before))
    assert gain(before, before).low == gain(before, before).high == 0
    after = [True] * 200
    estimate = gain(before, after)
    assert estimate.mean == 0.5
    assert estimate.low < 0.5 < estimate.high
    assert gain(after, before).mean == -0.5


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_gain_needs_the_same_problems(before, after):
    with pytest.raises(InputError, match="same problems"):
        gain(before, after)
    with pytest.raises(InputError, match="at least one"):
        accuracy([])


def test_sampled_responses_do_not_depend_on_the_batch(nano, problems):
    together = respond(*nano, problems, temperature=1.5, seed=3)
    assert respond(*nano, problems, temperature=1.5, seed=3, batch_size=5) == together
    assert respond(*nano, problems[::-1], temperature=1.5, seed=3, batch_size=1) == together[::-1]
    assert respond(*nano, problems[:1] * 3, temperature=1.5, seed=3)[0] == together[0]


def test_a_problem_that_stands_there_twice_is_sampled_twice(nano, problems):
    assert len(set(respond(*nano, problems[:1] * 8, temperature=2.0))) > 1


def test_replies_say_how_long_they_are_and_whether_they_ended(nano, problems):
    for limit, ended in ((5, False), (200, True)):
        prompts, names = [problem.prompt for problem in problems], [problem.id for problem in problems]
        for batch in sample(*nano, prompts, names, sampling=Sampling(max_new_tokens=limit), batch_size=4):
            for reply in batch.values():
                assert reply.finished == ended
                assert (reply.tokens == 5) == (not ended)
                assert len(nano[1](reply.text)["input_ids"]) == reply.tokens - ended


def test_a_prompt_gets_the_room_that_the_positions_leave():
    model, tokenizer = tiny_model(max_position_embeddings=64), tiny_tokenizer()
    prompts = [[{"role": "user", "content": "1" * length}] for length in (3, 40, 200)]
    replies = {}
    for batch in sample(model, tokenizer, prompts, "abc", sampling=Sampling(max_new_tokens=30), batch_size=3):
        replies |= batch
    lengths = [
        len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]) for prompt in prompts
    ]
    assert lengths[0] + 30 <= 64 < lengths[1] + 30 < lengths[2]
    assert replies[1].tokens <= 64 - lengths[1]
    assert (replies[2].text, replies[2].tokens, replies[2].finished) == ("", 0, False)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_tokens_are_drawn_from_the_models_distribution(temperature, top_p):
    logits_V = torch.tensor([2.0, 0.0, 1.0, -3.0, 1.5])
    probs_V = torch.softmax(logits_V / temperature, 0)
    if top_p < 1:
        order = probs_V.argsort(descending=True)
        kept = order[: int((probs_V[order].cumsum(0) < top_p).sum()) + 1]
        probs_V = torch.zeros(5).scatter(0, kept, probs_V[kept])
        probs_V /= probs_V.sum()
    n = 20_000
    names = [_Prompt(row=row, ids=[0], room=1, name=str(row)) for row in range(n)]
    draw = _ByOwnNumbers(names, 1, Sampling(temperature=temperature, top_p=top_p), torch.device("cpu"))
    chosen_B = draw(torch.zeros(n, 1, dtype=torch.long), logits_V.expand(n, 5)).argmax(-1)
    counts_V = torch.bincount(chosen_B, minlength=5)
    # Five standard deviations of each count; the draws are seeded.
    assert ((counts_V - n * probs_V).abs() <= 5 * (n * probs_V * (1 - probs_V)).sqrt() + 1e-3).all()
    assert counts_V[probs_V == 0].sum() == 0


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_new_tokens": 0}])
def test_sampling_out_of_range(options):
    with pytest.raises(InputError, match="expected"):
        Sampling(**options)
