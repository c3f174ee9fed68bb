"""Credit for a loop of one's own is the trainer's on the same sequences, and says what it lacks."""

import importlib.util
import textwrap
from pathlib import Path

import pytest
import torch

import flowtracer as ft
from flowtracer.credit import make_credit, needs_of, of_text, reads_of
from flowtracer.errors import InputError
from sampling import PROMPTS, RESPONSES
from tiny import tiny_model, tiny_tokenizer
from tiny_vlm import tiny_vlm
from trainers import RESPONSES as SAMPLED
from trainers import Answering, make_trainer, vowels

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"
pytestmark = pytest.mark.filterwarnings(
    "default::DeprecationWarning", "default::FutureWarning", "default::UserWarning"
)  # TRL's, accelerate's and torch's own


def ids_of(texts):
    return [tiny_tokenizer()(text)["input_ids"] for text in texts]


def weigh(credit="flow", *, rows=(0, 1, 2), advantages=(1.0, -0.5, 2.0), model=None, **options):
    prompts, responses = ids_of(PROMPTS[row] for row in rows), ids_of(RESPONSES[row] for row in rows)
    return ft.credit_weights(model or tiny_model(), tiny_tokenizer(), prompts, responses, advantages, credit, **options)


def given_to(credit):
    """What a strategy reads and only a caller can give."""
    needs = needs_of(make_credit(credit))
    given = {"rewards": [1.0, 0.0, 0.5]} if "group" in needs else {}
    given |= {"golds": ["7", "7", None]} if needs & {"gold", "gain"} else {}
    return given | ({"prompts": PROMPTS} if "gain" in needs else {})


@pytest.mark.parametrize("name", of_text())
def test_they_are_the_trainers_on_the_same_sequences(tmp_path, name):
    seen = []

    class Listening(Answering):
        def _generate_and_score_completions(self, inputs):
            out = super()._generate_and_score_completions(inputs)
            seen.append((inputs, out))
            return out

    credit = make_credit(name)

    def spy(signals):
        own.append(signals.advantages_B)
        return credit(signals)

    own: list[torch.Tensor] = []
    spy.reads = reads_of(credit)
    trainer = make_trainer(tmp_path, Listening, credit=spy, credit_normalise=True, temperature=0.9)
    trainer.model.train()
    trainer._generate_and_score_completions([trainer.train_dataset[0]] * 4)
    rows, out = seen[0]
    mask_BR = out["completion_mask"].bool()
    needs = needs_of(credit)
    got = ft.credit_weights(
        trainer.model,
        trainer.processing_class,
        [ids[mask.bool()].tolist() for ids, mask in zip(out["prompt_ids"], out["prompt_mask"], strict=True)],
        [ids[mask].tolist() for ids, mask in zip(out["completion_ids"], mask_BR, strict=True)],
        own[0],
        name,
        rewards=vowels(SAMPLED) if "group" in needs else None,
        golds=[row["gold"] for row in rows],
        prompts=[row["prompt"] for row in rows],
        normalise=True,
        temperature=0.9,
        seed=trainer.args.seed,
    )
    assert trainer.model.training
    assert torch.equal(got.mask_BR, mask_BR)
    # Forwards over other numbers of rows round otherwise, and factors follow.
    torch.testing.assert_close(got.advantages_BR, out["advantages"] * mask_BR, rtol=1e-4, atol=1e-5)
    assert name == "uniform" or not torch.equal(got.advantages_BR, own[0][:, None] * mask_BR)


@pytest.mark.parametrize("name", ["flow", "entropy", "grail", "random"])
def test_a_response_alone_is_worth_what_it_is_in_a_batch(name):
    advantages = (1.0, -0.5, 2.0)
    together = weigh(name, advantages=advantages)
    for row in range(3):
        alone = weigh(name, rows=[row], advantages=[advantages[row]])
        expected_1R = together.advantages_BR[row : row + 1, : alone.mask_BR.shape[1]]
        torch.testing.assert_close(alone.advantages_BR, expected_1R, rtol=1e-4, atol=1e-5)


def test_what_is_not_counted_or_not_there_is_worth_nothing():
    lengths = [len(ids) for ids in ids_of(RESPONSES)]
    counted = [[place != 1 for place in range(length)] for length in lengths]
    got = weigh(counted=counted)
    assert got.mask_BR.sum(-1).tolist() == [length - 1 for length in lengths]
    assert not got.mask_BR[:, 1].any()
    assert (got.advantages_BR[~got.mask_BR] == 0).all()
    assert (got.weights_BR[~got.mask_BR] == 0).all()
    assert set(got.weights_BR[got.mask_BR].tolist()) == {1.0, 1.5}
    own_B = torch.tensor([1.0, -0.5, 2.0])
    torch.testing.assert_close(got.advantages_BR, got.weights_BR * own_B[:, None])


def test_responses_without_flow_are_counted_and_keep_their_advantage():
    got = weigh()
    assert got.misses == {"no_answer": 1}
    assert (got.weights_BR[2][got.mask_BR[2]] == 1).all()
    assert not weigh("uniform").misses


def test_an_empty_response_is_a_row_of_its_own():
    tokenizer = tiny_tokenizer()
    got = ft.credit_weights(tiny_model(), tokenizer, ids_of(PROMPTS[:2]), [ids_of(RESPONSES)[0], []], [1.0, 1.0])
    assert got.misses == {"empty_response": 1}
    assert not got.mask_BR[1].any()
    assert (got.weights_BR[0][got.mask_BR[0]] > 1).any()
    with pytest.raises(InputError, match="a token or more in some response"):
        ft.credit_weights(tiny_model(), tokenizer, ids_of(PROMPTS[:1]), [[]], [1.0])


def test_groups_are_the_responses_to_equal_prompts():
    tokens, given = ids_of(RESPONSES), {"rewards": [1.0, 0.0, 1.0, 0.0]}
    both = ids_of([PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    seen = []

    def strategy(signals):
        seen.append(signals.group)
        return signals.weighted(torch.ones(signals.mask_BR.shape))

    strategy.needs = {"group"}
    ft.credit_weights(tiny_model(), tiny_tokenizer(), both, [*tokens, tokens[0]], [1.0] * 4, strategy, **given)
    assert seen[0].groups_B.tolist() == [0, 1, 0, 1]
    assert seen[0].baselines_B.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", [name for name in of_text() if given_to(name)])
def test_what_a_strategy_reads_and_nobody_gave_is_named(name):
    given = given_to(name)
    for lacking in given:
        others = {argument: value for argument, value in given.items() if argument != lacking}
        with pytest.raises(InputError, match=rf"expected {lacking} .*credit '{name}' reads it; pass {lacking}=\["):
            weigh(name, **others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"credit": "flwo"}, "expected a credit among"),
        ({"options": {"gama": 2}}, "expected options of credit 'flow'"),
        ({"options": {"layers": [9]}}, "expected layers among"),
        ({"advantages": [1.0, 2.0]}, "3 response_ids, 2 advantages"),
        ({"advantages": [1.0, 2.0, float("nan")]}, "one finite number a response"),
        ({"golds": ["7"]}, "1 golds"),
        ({"counted": [[True], [True], [True]]}, "expected counted as long as the responses"),
        ({"rows": (), "advantages": []}, "at least one, got 0 prompt_ids"),
        ({"credit": "oar", "sharded": True}, "sharded by FSDP or ZeRO"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        weigh(**options)


def test_images_are_refused():
    with pytest.raises(InputError, match="credit 'visual', which compares images"):
        weigh("visual")
    vlm = tiny_vlm("llava")
    with pytest.raises(InputError, match="got prompts that show images"):
        ft.credit_weights(vlm.model, vlm.processor.tokenizer, [[3, vlm.image_token, 4]], [[4, 5]], [1.0])


def test_a_prompt_without_a_token_is_refused():
    with pytest.raises(InputError, match="got none in row 1"):
        ft.credit_weights(tiny_model(), tiny_tokenizer(), [[3], []], [[4], [5]], [1.0, 1.0])


def test_the_docs_show_the_examples_loop():
    shown = (EXAMPLE.parents[1] / "docs" / "training.md").read_text().split("```python\n")[1].split("```")[0]
    assert textwrap.indent(shown, "    ") in EXAMPLE.read_text()


def test_the_example_trains():
    spec = importlib.util.spec_from_file_location("own_loop", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    torch.manual_seed(0)
    lines = list(example.train("nano", 3, 6))
    assert len(lines) == 3
    assert any(line["reward"] > 0 for line in lines)
    assert all(1 <= line["mean_factor"] <= 1.25 for line in lines)
    assert any(line["mean_factor"] > 1.1 for line in lines)
