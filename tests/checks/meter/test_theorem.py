"""The estimator as a theorem: where every response can be written down, the true gradient and worth are known."""

import functools

import numpy as np
import pytest
import torch
from torch.func import functional_call

from enumerable import PROMPTS, Toy, every_group, every_response, toy_model, toy_tokenizer
from flowtracer.checks.meter import MeterOptions, meter
from flowtracer.checks.meter.direction import Direction, find_direction
from flowtracer.checks.meter.gradient import Policy
from flowtracer.checks.meter.minibatch import Measured, measure
from flowtracer.checks.meter.rollouts import RolloutFile, as_batch
from flowtracer.checks.meter.strategies import Strategies
from flowtracer.checks.meter.worth import gains
from flowtracer.credit import Signals, make_credit
from flowtracer.folders import LineFile
from flowtracer.intervals import ratio_of_means
from flowtracer.model.generate import Sampling
from tolerances import assert_close

CPU = torch.device("cpu")

# torch's own, when it first differentiates forward
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def response_log_probs(model, parameters, prompt_ids, responses):
    """log p of each response and each of its tokens, straight from the definition."""
    rows = []
    for response in responses:
        ids = torch.tensor([[*prompt_ids, *response]])
        logits = functional_call(model, parameters, (), {"input_ids": ids}).logits[0]
        log_probs = logits.log_softmax(-1)[len(prompt_ids) - 1 : -1]
        own = log_probs.gather(-1, torch.tensor(response)[:, None]).squeeze(-1)
        rows.append(torch.nn.functional.pad(own, (0, 2 - len(response))))
    return torch.stack(rows)


@functools.cache
def truth():
    """Of each prompt its groups, response probabilities and gradients of tokens' log-probabilities; and grad J."""
    model = toy_model()
    names = [name for name, _ in model.named_parameters()]
    values = tuple(value.detach() for _, value in model.named_parameters())
    responses, total, found = every_response(), 0.0, []
    for problem in Toy().problems("train", len(PROMPTS)):
        groups = every_group(problem, responses)
        rewards = torch.tensor([group.rewards[1] for group in groups[: len(responses)]], dtype=torch.float64)

        def log_probs(*parts, prompt_ids=groups[0].prompt_ids):
            return response_log_probs(model, dict(zip(names, parts, strict=True)), prompt_ids, responses)

        jacobian = torch.autograd.functional.jacobian(log_probs, values)
        tokens_YRN = torch.cat([part.flatten(2) for part in jacobian], -1)
        probabilities_Y = log_probs(*values).sum(-1).exp()
        assert_close(probabilities_Y.sum(), 1.0)
        gradient_N = torch.einsum("y,y,yrn->n", probabilities_Y, rewards, tokens_YRN)
        total = total + gradient_N / len(PROMPTS)
        found.append((problem, groups, probabilities_Y, tokens_YRN))
    return found, total


def test_the_estimate_is_unbiased_to_the_last_digit():
    """The mean over all groups of two, each with its probability, is the exact gradient of expected reward."""
    found, exact_N = truth()
    policy, mean_N = Policy(toy_model(), rows_per_forward=512), 0.0
    for _, groups, probabilities_Y, _ in found:
        batch = as_batch(groups, CPU)
        chance_B = torch.outer(probabilities_Y, probabilities_Y).flatten().repeat_interleave(2)
        weights_BR = (chance_B * batch.centred_B() / 2)[:, None].expand(batch.sampled.response_ids_BR.shape)
        mean_N = mean_N + policy.gradients(batch.sampled, weights_BR[None])[0] / len(PROMPTS)
    assert float(exact_N.norm()) > 0.01
    torch.testing.assert_close(mean_N, exact_N, rtol=0, atol=1e-7 * float(exact_N.norm()))


def estimate(folder, rollouts):
    return find_direction(
        Policy(toy_model(torch.float32), rows_per_forward=1024),
        drawn(folder, rollouts // 2, seed=5),
        groups_per_step=rollouts // 8,
        moment_steps=1,
        loss_type="dapo",
        max_tokens=2,
        file=folder / f"{rollouts}.safetensors",
    )


def test_g_converges_to_the_exact_gradient(tmp_path):
    _, exact_N = truth()
    errors = []
    for rollouts in (256, 16_384):
        direction = estimate(tmp_path, rollouts)
        errors.append(float((direction.whole_N() - exact_N).norm() / exact_N.norm()))
    assert errors[1] < errors[0] / 4  # 64 times the rollouts, an eighth of the error in expectation
    assert errors[1] < 0.1
    assert direction.agreement() > 0.95


plain = make_credit("uniform")


def first(signals: Signals) -> torch.Tensor:
    """The advantage on the first token alone, which decides more."""
    factors_R = (torch.arange(signals.mask_BR.shape[1]) == 0).float()
    return signals.weighted(factors_R.expand(signals.mask_BR.shape))


def exact_gains(credit, groups, tokens_YRN):
    """<g_c, g*> / |g_c| of every minibatch of one group of two."""
    batch = as_batch(groups, CPU)
    mask_BR = batch.sampled.response_mask_BR.bool()
    signals = Signals(mask_BR=mask_BR, advantages_B=batch.advantages_B(), seeds_B=batch.seeds_B)
    number = len(tokens_YRN)
    pairs_SGRN = torch.stack([tokens_YRN.repeat_interleave(number, 0), tokens_YRN.repeat(number, 1, 1)], 1)
    weights_SGR = (credit(signals).double() * mask_BR).view(pairs_SGRN.shape[:3])
    step_SN = torch.einsum("sgr,sgrn->sn", weights_SGR, pairs_SGRN)
    norm_S = step_SN.norm(dim=1)
    return torch.where(norm_S > 1e-12, (step_SN @ truth()[1]) / norm_S.clamp_min(1e-12), 0.0)


def test_a_measured_minibatch_is_the_exact_one():
    """With the exact gradient for g*, each step is what per-token gradients, written out, say it is."""
    found, exact_N = truth()
    direction = Direction(halves_2N=exact_N.float().expand(2, -1), moments_N=torch.ones(len(exact_N)))
    policy = Policy(toy_model(torch.float32))
    for _, groups, _, tokens_YRN in found:
        expected_S = exact_gains(first, groups, tokens_YRN)
        for number in range(0, len(groups), 97):
            batch = as_batch(groups[number : number + 1], CPU)
            placed = Strategies(policy.model, toy_tokenizer(), {"first": first}).place(batch)
            one = measure(policy, direction, batch, placed, loss_type="dapo", max_tokens=2, seed=0, check=True)
            assert gains([one], 0)[0] == pytest.approx(float(expected_S[number]), rel=1e-4, abs=1e-6)


def drawn(folder, number, seed):
    """Groups of two, sampled from the model."""
    sampling = Sampling(temperature=1.0, max_new_tokens=2, seed=seed)
    file = LineFile(folder / f"{seed}-{number}.jsonl")
    problems = Toy().problems("train", number)
    rollouts = RolloutFile(file, problems, Toy(), group=2, sampling=sampling, batch_size=2048)
    return rollouts.draw(toy_model(torch.float32), toy_tokenizer())


def test_worth_over_drawn_minibatches_converges_to_that_over_all_of_them(tmp_path):
    gain = {first: [], plain: []}
    exact = dict.fromkeys(gain, 0.0)
    groups = drawn(tmp_path, 6000, seed=7)
    for turn, (_, every, probabilities_Y, tokens_YRN) in enumerate(truth()[0]):
        place = {tuple(map(tuple, group.response_ids)): number for number, group in enumerate(every)}
        chance_S = torch.outer(probabilities_Y, probabilities_Y).flatten()
        for credit in gain:
            gain_S = exact_gains(credit, every, tokens_YRN)
            exact[credit] += float(chance_S @ gain_S)
            gain[credit] += [float(gain_S[place[tuple(map(tuple, group.response_ids))]]) for group in groups[turn::2]]
    found = ratio_of_means(*(np.array(gain[credit]) for credit in (first, plain)))
    expected = exact[first] / exact[plain]
    width = found.high - found.low
    assert abs(found.mean - expected) < 0.75 * width  # three standard errors
    assert width < 0.2 < abs(expected - 1)


def test_the_meter_measures_what_the_exact_gradient_says(tmp_path):
    """From end to end: its own rollouts and its own estimate of g* give each drawn minibatch nearly its exact gain."""
    options = MeterOptions(rollouts=2048, minibatches=16, batch=2, group=2, max_new_tokens=2, moment_steps=2)
    meter(toy_model(torch.float32), toy_tokenizer(), Toy(), {"first": first}, options=options, out=tmp_path)
    lines = LineFile(tmp_path / "rollouts.jsonl").lines()[-16:]
    files = sorted(tmp_path.glob("minibatches/*/*.safetensors"))
    found, expected = [], []
    for number, (line, file) in enumerate(zip(lines, files, strict=True)):
        _, every, _, tokens_YRN = truth()[0][number % 2]
        place = [list(map(list, group.response_ids)) for group in every].index(line["response_ids"])
        for map_number, credit in enumerate((plain, first)):
            found.append(gains([Measured.load(file)], map_number)[0])
            expected.append(float(exact_gains(credit, every, tokens_YRN)[place]))
    largest = np.abs(expected).max()
    assert largest > 0.05
    np.testing.assert_allclose(found, expected, atol=0.25 * largest)
