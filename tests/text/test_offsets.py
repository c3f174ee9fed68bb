import functools
import json
from typing import ClassVar

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from flowtracer.errors import InputError
from flowtracer.text.offsets import token_offsets, tokens_overlapping
from flowtracer.text.span import CharSpan
from tiny import CORPUS, tiny_tokenizer

UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\r"), max_size=40)


@functools.cache
def sentencepiece_like():
    """As Llama 2 spells: ▁ for a space, one put in front and taken off again, bytes for what is unknown."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    # Training marks the bytes as special, while in a real tokenizer they are ordinary tokens.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def check(tokenizer, ids):
    text, offsets = token_offsets(tokenizer, ids)
    assert text == tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert len(offsets) == len(ids)
    covered = set()
    previous = 0
    for start, stop in offsets:
        assert 0 <= start <= stop <= len(text)
        assert start >= previous - 1, "ranges follow the text"
        covered.update(range(start, stop))
        previous = stop
    assert covered == set(range(len(text)))
    return text, offsets


@pytest.mark.parametrize("make", [tiny_tokenizer, sentencepiece_like])
@given(text=UNICODE)
def test_every_character_is_spelled_by_some_token(make, text):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert check(tokenizer, ids)[0] == text


@pytest.mark.parametrize("make", [tiny_tokenizer, sentencepiece_like])
@given(data=st.data())
def test_any_ids_that_a_model_may_generate(make, data):
    tokenizer = make()
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=20))
    check(tokenizer, ids)  # ill-formed bytes too


def test_tokens_of_one_character_all_cover_it():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a😀b", add_special_tokens=False)["input_ids"]
    text, offsets = check(tokenizer, ids)
    assert len(ids) == 6
    assert [text[a:b] for a, b in offsets] == ["a", "😀", "😀", "😀", "😀", "b"]


def test_special_tokens_are_their_literal_text():
    tokenizer = tiny_tokenizer()
    ids = [
        tokenizer.bos_token_id,
        *tokenizer("7", add_special_tokens=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    text, offsets = check(tokenizer, ids)
    assert text == "<|start|>7<|end|>"
    assert [text[a:b] for a, b in offsets] == ["<|start|>", "7", "<|end|>"]


def test_an_answer_that_straddles_tokens_takes_them_all():
    tokenizer = tiny_tokenizer()
    text = "so 1234567."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    _, offsets = check(tokenizer, ids)
    tokens = tokens_overlapping(offsets, CharSpan(start=3, stop=10))
    spelled = text[offsets[tokens.start][0] : offsets[tokens.stop - 1][1]]
    assert "1234567" in spelled
    assert len(tokens) > 1


@pytest.mark.parametrize(
    ("span", "expected"),
    [((0, 1), range(1)), ((2, 5), range(2, 4)), ((1, 2), range(1, 3)), ((9, 12), None), ((3, 3), None)],
)
def test_overlap(span, expected):
    offsets = [(0, 1), (1, 2), (1, 3), (3, 6), (6, 6)]
    assert tokens_overlapping(offsets, CharSpan(start=span[0], stop=span[1])) == expected


def test_a_sentencepiece_tokenizer_of_its_own(tmp_path):
    """The slow backend, which knows no offsets."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=330,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    from transformers import SentencePieceBackend

    tokenizer = SentencePieceBackend(vocab_file=str(tmp_path / "spm.model"), unk_token="<unk>")
    for text in ["Ann has 3 apples", "a 😀 b", "the answer is 18."]:
        check(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("make", [tiny_tokenizer, sentencepiece_like])
@given(text=UNICODE, place=st.integers(0, 40))
def test_a_row_of_a_padded_vocabulary_spells_nothing(make, text, place):
    tokenizer = make()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    place = min(place, len(ids))
    padded = [*ids[:place], len(tokenizer) + 7, *ids[place:]]
    assert tokenizer.convert_ids_to_tokens(padded)[place] is None
    spelled, offsets = check(tokenizer, padded)
    start, stop = offsets.pop(place)
    assert start == stop
    assert (spelled, offsets) == token_offsets(tokenizer, ids)


def test_a_tokenizer_that_does_not_spell_its_text_is_refused():
    class Shouting:
        added_tokens_decoder: ClassVar = {}

        def decode(self, ids, **_):
            return "LOUD"

        def convert_ids_to_tokens(self, ids):
            return ["quiet"] * len(ids)

    with pytest.raises(InputError, match="byte-level or sentencepiece"):
        token_offsets(Shouting(), [1])
