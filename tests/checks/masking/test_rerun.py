"""Hiding is exact: against an eager forward over the whole text, with the hidden columns masked for every later row."""

import pytest

from flowtracer.checks.masking import Rereader
from flowtracer.checks.masking.rerun import FILLER
from flowtracer.errors import InputError
from flowtracer.model.forward import cache_argument
from masked_eager import FAMILIES, eager_logits
from tiny import tiny_model, tiny_tokenizer

PROMPT = "Ann has 3 apples and buys 4 more.\n"
REASONING = "First add the numbers. So she has 3 + 4 = 7 apples.\nThen divide by two."
CUE = "\nThe answer is"
VARIANTS = [(0,), (2, 5, 9), tuple(range(1, 23, 2)), tuple(range(20)), (), (3,), (22,)]


def never(_text):
    return False


def encoded():
    tokenizer = tiny_tokenizer()
    return [tokenizer(text)["input_ids"] for text in (PROMPT, REASONING, CUE)]


def reread(model, variants, way="hide", **options):
    options = {"max_new_tokens": 6, **options}
    return Rereader(model, tiny_tokenizer(), way=way, **options).replies(*encoded(), variants, never)


def greedy(model, ids, hidden, count):
    """Greedy decoding without a cache, one whole forward a token."""
    found = []
    for _ in range(count):
        logits_TL, _ = eager_logits(model, [*ids, *found], hidden)
        found.append(int(logits_TL[-1].argmax()))
        if found[-1] in tiny_tokenizer().all_special_ids:
            break
    return tuple(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_tokens_get_no_attention_and_all_else_is_the_models_own(family):
    model = tiny_model(family, **FAMILIES[family])
    prompt, reasoning, cue = encoded()
    before, *replies = reread(model, VARIANTS)
    whole = [*prompt, *reasoning, *cue]
    assert before.ids == greedy(model, whole, (), 6)
    scored = len(before.ids) - (before.ids[-1] in tiny_tokenizer().all_special_ids)
    for hidden, reply in zip(VARIANTS, replies, strict=True):
        places = [len(prompt) + place for place in hidden]
        logits_TL, attention = eager_logits(model, [*whole, *before.ids], places)
        for place in places:
            assert not attention[:, :, place + 1 :, place].any(), "no later token attends to it"
        log_probs_TL = logits_TL.log_softmax(-1)
        expected = sum(log_probs_TL[len(whole) - 1 + n, token] for n, token in enumerate(before.ids[:scored]))
        assert reply.log_prob == pytest.approx(float(expected), abs=2e-4)
        assert reply.ids == greedy(model, whole, places, 6), "decoding goes on from where the answers part"


def test_nothing_hidden_is_nothing_changed():
    before, same = reread(tiny_model(), [()])
    assert same.ids == before.ids
    assert same.log_prob == pytest.approx(before.log_prob, abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_draft_changes_no_reply(family):
    model, tokenizer = tiny_model(family, **FAMILIES[family]), tiny_tokenizer()
    expected = reread(model, VARIANTS)
    answer = list(expected[0].ids)
    other = (answer[1] + 1) % 20 + 3
    end = tokenizer.eos_token_id
    for draft in (answer[:1], answer[:3], answer, [*answer, 5], [answer[0], other, answer[2]], [other], [end, 5]):
        rereader = Rereader(model, tokenizer, max_new_tokens=6)
        for got, reply in zip(rereader.replies(*encoded(), VARIANTS, never, draft), expected, strict=True):
            assert got.ids == reply.ids, draft
            assert got.log_prob == pytest.approx(reply.log_prob, abs=1e-4), draft


def test_a_draft_that_is_right_needs_no_step():
    model = tiny_model()
    answer = reread(model, [])[0].ids
    steps = []
    model.register_forward_hook(
        lambda _, args, kwargs, output: steps.append(kwargs.get("input_ids", *args[:1]).shape[1]), with_kwargs=True
    )
    Rereader(model, tiny_tokenizer(), max_new_tokens=6).replies(*encoded(), [], never, answer)
    assert 1 not in steps
    reread(model, [])
    assert steps.count(1) == len(answer) - 1


@pytest.mark.parametrize("way", ["hide", "replace", "delete"])
def test_a_batch_gives_what_each_gives_alone(way):
    model = tiny_model()
    together = reread(model, VARIANTS, way)
    assert len({reply.ids for reply in together}) > 2, "the variants must differ for this to mean anything"
    in_turn = reread(model, VARIANTS, way, max_tokens=1)
    assert [reply.ids for reply in in_turn] == [reply.ids for reply in together]
    for number, hidden in enumerate(VARIANTS):
        _, alone = reread(model, [hidden], way, max_tokens=1)
        assert alone.ids == together[number + 1].ids
        assert alone.log_prob == pytest.approx(together[number + 1].log_prob, abs=1e-4)


@pytest.mark.parametrize("way", ["replace", "delete"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_other_ways_are_another_text(way, family):
    model, tokenizer = tiny_model(family, **FAMILIES[family]), tiny_tokenizer()
    prompt, reasoning, cue = encoded()
    filler = tokenizer(FILLER)["input_ids"][0]
    before, *replies = reread(model, VARIANTS, way)
    scored = len(before.ids) - (before.ids[-1] in tokenizer.all_special_ids)
    for hidden, reply in zip(VARIANTS, replies, strict=True):
        kept = [
            filler if place in hidden else token
            for place, token in enumerate(reasoning)
            if way == "replace" or place not in hidden
        ]
        whole = [*prompt, *kept, *cue]
        logits_TL, _ = eager_logits(model, [*whole, *before.ids], ())
        expected = sum(logits_TL.log_softmax(-1)[len(whole) - 1 + n, t] for n, t in enumerate(before.ids[:scored]))
        assert reply.log_prob == pytest.approx(float(expected), abs=2e-4)
        assert reply.ids == greedy(model, whole, (), 6)


def test_an_unknown_way_is_refused():
    with pytest.raises(InputError, match="hide, replace, delete"):
        Rereader(tiny_model(), tiny_tokenizer(), way="blur")


def test_a_model_with_state_is_refused():
    model = tiny_model()
    model.config.layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(InputError, match="state cannot be hidden"):
        Rereader(model, tiny_tokenizer())


def test_a_model_that_gives_all_logits_answers_the_same(monkeypatch):
    model = tiny_model()
    expected = reread(model, VARIANTS)
    own, name = model.forward, cache_argument(model)

    def forward(input_ids, attention_mask=None, position_ids=None, use_cache=None, past_key_values=None):
        options = {"position_ids": position_ids, "use_cache": use_cache, name: past_key_values}
        return own(input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(model, "forward", forward)  # a model's own code, which knows no more options
    for one, other in zip(reread(model, VARIANTS), expected, strict=True):
        assert one.ids == other.ids
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
