"""Where a response begins and where what it says ends, however its tokens came to be."""

import pytest

from flowtracer.text.encoding import encode_sampled, encode_text, without_end
from tiny import tiny_tokenizer


def test_the_response_begins_with_the_token_that_spells_its_first_character():
    tokenizer = tiny_tokenizer()
    encoded = encode_text(tokenizer, "What is 1 + 2?\n", "It is 3.")
    first = encoded.first_response_token
    assert (encoded.offsets[:first, 1] <= encoded.response_start).all()
    assert encoded.offsets[first, 1] > encoded.response_start
    assert tokenizer.decode(encoded.token_ids[first:].tolist()) == "It is 3."


def test_without_a_response_nothing_begins_it():
    encoded = encode_text(tiny_tokenizer(), "What is 1 + 2?", "")
    assert encoded.first_response_token == len(encoded.token_ids)


@pytest.mark.parametrize("said", ["", "It is 3.", "<|end|>It is 3."])
@pytest.mark.parametrize("marks", [0, 1, 3])
def test_only_the_marks_at_the_end_of_a_response_are_no_text(said, marks):
    tokenizer = tiny_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert without_end(tokenizer, [*ids, *[end] * marks]) == ids
    prompt = tokenizer("What is 1 + 2?<|end|>", add_special_tokens=False)["input_ids"]
    encoded = encode_sampled(tokenizer, prompt, [*ids, *[end] * marks])
    assert encoded.text[encoded.response_start : encoded.response_stop] == said
