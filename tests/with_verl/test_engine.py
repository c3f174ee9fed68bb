"""What comes back with verl's old log-probabilities places credit as a loop of one's own does, and changes nothing."""

import functools

import pytest
import torch
from configured import NANO, configured
from rollouts import TASK
from run_step import PROBLEMS
from tensordict import NonTensorStack, TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested

import flowtracer as ft
from flowtracer.credit import CREDITS, make_credit, of_text, reads_of, token_factors
from flowtracer.errors import CaptureError, InputError
from flowtracer.model.load import load_model
from flowtracer.rl.advantages import token_advantages
from flowtracer.rl.verl.engine import READS, FlowEngine
from flowtracer.rl.verl.queued import asked_of_workers, signals_of
from flowtracer.rl.verl.refusals import refuse_credit
from flowtracer.rl.verl.scores import FIELD

GROUP = 3
TEMPERATURE = 0.9


@pytest.fixture(scope="module", autouse=True)
def process_group(tmp_path_factory):
    store = tmp_path_factory.mktemp("gloo") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@functools.cache
def engine():
    """A real one, over nano, sharded by FSDP2 in a group of one process; of FSDP1 torch has none on a CPU."""
    config = configured()
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    model.model_type = "language_model"
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    actor.optim.total_training_steps = 1
    actor.engine.use_remove_padding = True
    made = FlowEngine(
        model_config=model,
        engine_config=actor.engine,
        optimizer_config=actor.optim,
        checkpoint_config=actor.checkpoint,
    )
    made.initialize()
    return made


@functools.cache
def sampled():
    """Prompts and responses of nano, in groups; one response is a token alone, one has no answer."""
    model, tokenizer = load_model("nano")
    torch.manual_seed(5)
    prompts, responses = [], []
    for numbers, target, gold in PROBLEMS[:3]:
        messages = TASK.pose(numbers, target, gold).prompt
        asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        given = model.generate(torch.tensor([asked] * GROUP), do_sample=True, max_new_tokens=80)[:, len(asked) :]
        end = tokenizer.eos_token_id
        prompts += [list(asked)] * GROUP
        responses += [ids[: ids.index(end) + 1] if end in ids else ids for ids in given.tolist()]
    responses[1], responses[5] = [tokenizer.eos_token_id], responses[5][:9]
    return prompts, responses


def nested(rows):
    return torch.nested.as_nested_tensor([torch.as_tensor(row) for row in rows], layout=torch.jagged)


def passed(*, packed=True, reads=None, tokens=400, **changes):
    """The pass that computes old log-probabilities, as a worker of verl runs it."""
    prompts, responses = sampled()
    whole = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    masks = nested([torch.ones(len(ids), dtype=torch.long) for ids in responses])
    data = TensorDict(
        {
            "input_ids": nested(whole),
            "position_ids": nested([torch.arange(len(ids)) for ids in whole]),
            "prompts": nested(prompts),
            "responses": nested(responses),
            "response_mask": masks,
            "loss_mask": masks,
            **changes,
        },
        batch_size=len(whole),
    )
    tu.assign_non_tensor(
        data,
        temperature=TEMPERATURE,
        calculate_entropy=True,
        use_remove_padding=packed,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=tokens,
        use_fused_kernels=False,
    )
    if reads is not None:
        tu.assign_non_tensor_data(data, READS, reads)
    with engine().eval_mode():
        output = engine().infer_batch(data, loss_function=None)["model_output"]
    return data, output


def queued(data, output, advantages, rewards):
    """The batch as it stands in the transfer queue when verl has computed its advantages."""
    mask = data["response_mask"]
    lengths = mask.offsets().diff().tolist()
    uids = [f"prompt-{row // GROUP}" for row in range(len(lengths))]
    fields = {
        "responses": data["responses"],
        "response_mask": mask,
        "old_log_probs": response_from_nested(output["log_probs"], mask),
        "entropy": response_from_nested(output["entropy"], mask),
        "advantages": nested([torch.full((n,), value) for n, value in zip(lengths, advantages, strict=True)]),
        "rm_scores": nested([[0.0] * (n - 1) + [value] for n, value in zip(lengths, rewards, strict=True)]),
        "uid": NonTensorStack(*uids),
    }
    if FIELD in output:
        fields[FIELD] = output[FIELD]
    return TensorDict(fields, batch_size=len(lengths))


REWARDS = [1.0, 0.0, 0.5, 0.0, 1.0, 0.0, 0.2, 0.4, 0.4]
ADVANTAGES = [1.0, -0.7, 0.3, -0.5, 1.2, -0.5, 0.0, 0.6, 0.6]


def works(name):
    try:
        refuse_credit(name, reads_of(make_credit(name)))
    except InputError:
        return False
    return True


WORKING = [name for name in of_text() if works(name)]


def test_which_strategies_work():
    assert set(WORKING) == {
        "attention",
        "attention_entropy",
        "confidence",
        "correlation",
        "coupled",
        "entropy",
        "entropy_8020",
        "flow",
        "flow_contrast",
        "free_flow",
        "global",
        "local",
        "position",
        "random",
        "shuffled",
        "uniform",
    }


@pytest.mark.parametrize("name", sorted(set(CREDITS) - set(WORKING)))
def test_the_others_are_refused_by_name(name):
    credit = make_credit(name)
    with pytest.raises(InputError, match=name):
        refuse_credit(name, reads_of(credit))


def assert_same_credit(name, options, data, output):
    prompts, responses = sampled()
    credit = make_credit(name, options)
    signals = signals_of(queued(data, output, ADVANTAGES, REWARDS), reads_of(credit), seed=11, trained=0.25)
    got_BR = token_advantages(credit, signals, normalise=False)
    model, tokenizer = load_model("nano")
    expected = ft.credit_weights(
        model,
        tokenizer,
        prompts,
        responses,
        ADVANTAGES,
        name,
        options=options,
        rewards=REWARDS,
        temperature=TEMPERATURE,
        trained=0.25,
        seed=11,
    )
    assert torch.equal(signals.mask_BR, expected.mask_BR)
    apart_BR = ~torch.isclose(got_BR, expected.advantages_BR, rtol=1e-4, atol=1e-5) & signals.mask_BR
    for row in apart_BR.any(-1).nonzero().squeeze(-1):
        # Of tokens with one score, as where a group begins alike, rounding says which is the last to be boosted.
        tied = credit.scores(signals)[row][apart_BR[row]]
        assert float(tied.max() - tied.min()) < 1e-6 * float(credit.scores(signals)[row].abs().max())
    return token_factors(got_BR, signals.advantages_B)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", WORKING)
def test_credit_is_that_of_a_loop_of_ones_own(name, packed):
    data, output = passed(packed=packed, reads=asked_of_workers(reads_of(make_credit(name))))
    factors_BR = assert_same_credit(name, None, data, output)
    assert name == "uniform" or float((factors_BR - 1).abs().max()) > 0.1, "the test needs credit that differs"


@pytest.mark.parametrize(
    "options", [{"layers": [1, 2, 3], "ratio": 0.2}, {"at": "prediction"}, {"keep": "bottom", "sign": "positive"}]
)
def test_options_reach_the_workers(options):
    reads = asked_of_workers(reads_of(make_credit("flow", options)))
    assert_same_credit("flow", options, *passed(reads=reads, tokens=150))


def test_the_pass_is_verls_to_the_bit_and_takes_no_forward_more():
    reads = asked_of_workers(reads_of(make_credit("flow")))
    passed(reads=reads)  # in which capture proves itself
    forwards = []
    hook = engine().module.register_forward_pre_hook(lambda *_: forwards.append(1))
    _, plain = passed(tokens=150)
    stock = len(forwards)
    _, read = passed(tokens=150, reads=reads)
    hook.remove()
    assert len(forwards) == 2 * stock > 2
    assert FIELD not in plain
    for name in ("log_probs", "entropy"):
        assert torch.equal(plain[name].values(), read[name].values())
    assert torch.equal(read[FIELD].offsets(), read["log_probs"].offsets())


def test_images_are_refused():
    reads = asked_of_workers(reads_of(make_credit("flow")))
    prompts, responses = sampled()
    four = [torch.arange(len(p) + len(r)).expand(4, -1) for p, r in zip(prompts, responses, strict=True)]
    positions = torch.nested.nested_tensor_from_jagged(
        torch.cat(four, 1), torch.tensor([0, *(row.shape[1] for row in four)]).cumsum(0), jagged_dim=2
    )
    with pytest.raises((InputError, CaptureError), match="images"):
        passed(reads=reads, position_ids=positions)


def test_a_pass_without_signals_is_noticed():
    data, output = passed()
    with pytest.raises(InputError, match="FlowTracer's engine"):
        signals_of(queued(data, output, ADVANTAGES, REWARDS), reads_of(make_credit("flow")), seed=0, trained=0.0)


def test_advantages_by_token_are_noticed():
    data, output = passed()
    batch = queued(data, output, ADVANTAGES, REWARDS)
    batch["advantages"] = nested([row + torch.arange(len(row)) for row in batch["advantages"].unbind()])
    with pytest.raises(InputError, match="one advantage a response"):
        signals_of(batch, reads_of(make_credit("uniform")), seed=0, trained=0.0)


def test_nano_is_what_runs():
    assert engine().model_config.path == NANO
