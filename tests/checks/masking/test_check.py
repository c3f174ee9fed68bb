"""The causal check of a rollout, on a model that has learned to read its answer off one token."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from flowtracer.checks.masking import MaskingCheck, MaskingFolder, TokenScorer, summarise
from flowtracer.credit import Signals
from flowtracer.errors import FormatError, InputError, TraceError
from flowtracer.trace.trace import Rollout, Skipped
from tiny import tiny_model, tiny_tokenizer

PROMPT = "what is x?\n"
DIGITS = (1, 3, 4, 5, 7, 8, 9)  # those that the tokenizer spells alike, in one token with the space before them


def rollout(digit, **metadata):
    response = f"First x = {digit} apples. Then add the numbers.\nThe answer is {digit}."
    return Rollout(prompt=PROMPT, response=response, id=f"x{digit}", metadata={"gold": str(digit), **metadata})


def digit_place():
    """Place of the digit among the response's tokens."""
    texts = [tiny_tokenizer()(rollout(d).response)["input_ids"] for d in (3, 4)]
    return next(n for n, (one, other) in enumerate(zip(*texts, strict=True)) if one != other)


@dataclass
class Planted:
    """Scores the token that the answer depends on above all others."""

    needs = frozenset()

    def scores(self, signals: Signals) -> torch.Tensor:
        return (torch.arange(signals.mask_BR.shape[1]) == digit_place()).float()[None]

    def __call__(self, signals: Signals) -> torch.Tensor:
        return signals.weighted(1 + self.scores(signals))


@pytest.fixture(scope="module")
def reader():
    """A tiny model trained to repeat the digit of the reasoning as its answer."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(num_hidden_layers=2, initializer_range=0.08)
    rows = [tokenizer(PROMPT + rollout(d).response)["input_ids"] for d in DIGITS]
    ids_BT = torch.tensor(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        loss = model(ids_BT, labels=ids_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def check_of(reader, **options):
    options = {"by": {"planted": Planted()}, "shares": (0.05, 0.2), **options}
    return MaskingCheck(*reader, **options)


def test_hiding_the_one_token_that_matters_flips_the_answer(reader):
    check = check_of(reader)
    outcomes = [check.check(rollout(digit)) for digit in DIGITS]
    assert all(outcome.correct for outcome in outcomes), "with nothing hidden the model reads the digit"
    assert {outcome.answer for outcome in outcomes} == {str(digit) for digit in DIGITS}
    summary = summarise(outcomes)
    top = next(row for row in summary.rows if (row.by, row.end, row.share) == ("planted", "top", 0.05))
    # Without the digit the seven texts are the same, so one answer is given to all: right for one at most.
    assert top.changed.mean >= 6 / 7
    assert top.flipped.mean == top.changed.mean
    bottom = next(row for row in summary.rows if (row.by, row.end, row.share) == ("planted", "bottom", 0.05))
    assert bottom.changed.mean <= 0.3
    assert top.log_prob_change.mean < bottom.log_prob_change.mean - 1
    assert summary.top_over_bottom["planted"]["0.05"].low > 0
    deletion = {curve.by: curve.area.mean for curve in summary.curves if curve.kind == "deletion"}
    insertion = {curve.by: curve.area.mean for curve in summary.curves if curve.kind == "insertion"}
    assert deletion["planted"] < deletion["random"]
    assert insertion["planted"] > insertion["random"]


def test_candidates_are_the_reasoning_before_the_answers_sentence(reader):
    outcome = check_of(reader).check(rollout(7))
    tokenizer = tiny_tokenizer()
    assert outcome.candidates == len(tokenizer("First x = 7 apples. Then add the numbers.")["input_ids"])
    assert outcome.tokens == len(tokenizer(PROMPT + rollout(7).response)["input_ids"])
    assert outcome.gold == "7"


def test_answers_may_be_graded_by_a_function_of_ones_own(reader):
    seen = []

    def odd(rollout, answer):
        seen.append(rollout.id)
        return int(answer) % 2 == 1 if answer.isdigit() else None

    outcome = check_of(reader, grade=odd).check(rollout(4))
    assert outcome.correct is False
    assert set(seen) == {"x4"}


def test_the_same_seed_draws_the_same_tokens(reader):
    one, same = (check_of(reader, draws=2).check(rollout(3)) for _ in range(2))
    other = check_of(reader, draws=2, seed=1).check(rollout(3))
    assert one == same
    assert one != other


def test_flow_and_attention_can_be_checked(reader):
    outcome = MaskingCheck(*reader, by=["flow", "attention", "oar", "random"], shares=(0.2,)).check(rollout(5))
    assert {variant.by for variant in outcome.variants} == {"flow", "attention", "oar", "random"}


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("no idea", "no_answer"),
        ("The answer is 7.", "no_reasoning"),
        ("", "empty_response"),
    ],
)
def test_what_cannot_be_checked_is_named(reader, response, reason):
    with pytest.raises(TraceError) as caught:
        check_of(reader).check(Rollout(prompt=PROMPT, response=response))
    assert caught.value.reason == reason


def test_a_rollout_beyond_the_models_context_is_named(reader):
    model, _ = reader
    check = check_of(reader)
    room = model.config.max_position_embeddings
    with pytest.raises(TraceError, match=f"at most {room} tokens") as caught:
        check.check(Rollout(prompt=PROMPT, response="Add 3. " * room + "\nThe answer is 7."))
    assert caught.value.reason == "too_long"
    long = Rollout(prompt=PROMPT, response="Add 3. " * 30_000 + "\nThe answer is 7.")  # 200 KB, at once
    with pytest.raises(TraceError, match="at most"):
        check.check(long)


def test_strategies_that_read_the_same_share_its_forwards(reader):
    model, tokenizer = reader

    def forwards(*names):
        scorer = TokenScorer(model, tokenizer, names)
        prompt, response = (tokenizer(text)["input_ids"] for text in (PROMPT, rollout(5).response))
        scorer.scores(prompt, response, 0)  # proofs of the capture run once
        ran = []
        hook = model.model.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
        scores = scorer.scores(prompt, response, 0)
        hook.remove()
        assert list(scores) == list(names)
        return len(ran), scores

    attention, alone = forwards("attention")
    both, shared = forwards("attention", "attention_entropy", "position")
    assert both == attention == 1
    assert (shared["attention"] == alone["attention"]).all()
    assert forwards("local", "global")[0] == forwards("local")[0] == 1
    mixed, scores = forwards("flow", "attention")
    assert mixed == 1
    assert scores["attention"] == pytest.approx(alone["attention"])
    assert scores["flow"] == pytest.approx(forwards("flow")[1]["flow"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ["uniform"]}, "'uniform', which has no scores"),
        ({"by": ["correlation"]}, r"'correlation': \['group'\]"),
        ({"by": ["flaw"]}, "expected a credit among"),
        ({"shares": (0.2, 1.5)}, "shares of the tokens"),
        ({"shares": ()}, "shares of the tokens"),
        ({"way": "blur"}, "way of hiding"),
    ],
)
def test_bad_options_are_refused(reader, options, message):
    with pytest.raises(InputError, match=message):
        check_of(reader, **options)


def test_a_killed_run_goes_on_and_ends_the_same(reader, tmp_path):
    records = [rollout(1), Skipped(id="bad", reason="broken_json", message="x"), rollout(2), rollout(3)]
    whole = MaskingFolder(tmp_path / "whole", {"by": "planted"})
    outcomes = list(whole.check(check_of(reader), records))
    parts = MaskingFolder(tmp_path / "parts", {"by": "planted"})
    running = parts.check(check_of(reader), records)
    next(running)
    running.close()
    half = (tmp_path / "whole" / "outcomes.jsonl").read_text().splitlines()[1][:40]
    with (tmp_path / "parts" / "outcomes.jsonl").open("a") as file:
        file.write(half)  # the kill came in the middle of a line
    again = MaskingFolder(tmp_path / "parts", {"by": "planted"})
    assert list(again.check(check_of(reader), records)) == outcomes
    for name in ("outcomes.jsonl", "skipped.jsonl"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    known = [outcome for outcome in outcomes if not isinstance(outcome, Skipped)]
    assert again.summarise(known) == whole.summarise(known)
    assert json.loads((tmp_path / "whole" / "summary.json").read_text())["rollouts"] == 3
    with pytest.raises(InputError, match='by "flow" instead of "planted"'):
        MaskingFolder(tmp_path / "parts", {"by": "flow"})


def checked(path, reader, records, model=""):
    """Answers of a run, and how many lines the folder then has."""
    folder = MaskingFolder(path, {}, model=model)
    found = {outcome.id: outcome.answer for outcome in folder.check(check_of(reader), records)}
    return found, len((path / "outcomes.jsonl").read_text().splitlines())


def test_outcomes_are_known_by_what_their_rollouts_say(reader, tmp_path):
    records = [rollout(1), rollout(2), rollout(3)]
    first, lines = checked(tmp_path, reader, records)
    assert lines == 3
    assert checked(tmp_path, reader, records[::-1]) == (first, 3), "another order"
    renamed = [replace(record, id=f"r{n}") for n, record in enumerate([*records, records[0]])]
    found, lines = checked(tmp_path, reader, renamed)
    assert lines == 3, "another name, and equal ones"
    assert [found[f"r{n}"] for n in range(4)] == [*first.values(), first["x1"]]
    anew = [replace(rollout(4), id="x1"), replace(rollout(5), id="x2")]
    found, lines = checked(tmp_path, reader, anew)
    assert (lines, found.keys()) == (5, {"x1", "x2"}), "written anew under the same names"
    assert found["x1"] != first["x1"]
    assert checked(tmp_path, reader, [rollout(1, gold="9")])[1] == 6, "another gold answer"
    assert checked(tmp_path, reader, [rollout(1)], model="trained since")[1] == 7


def test_lines_that_two_processes_wrote_are_refused(reader, tmp_path):
    checked(tmp_path, reader, [rollout(1)])
    lines = tmp_path / "outcomes.jsonl"
    lines.write_text(lines.read_text() * 2)
    with pytest.raises(FormatError, match="each key once"):
        checked(tmp_path, reader, [rollout(1)])
