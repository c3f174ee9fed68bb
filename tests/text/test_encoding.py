"""Where a response begins and where what it says ends, however its tokens came to be."""

import pytest

from flowtracer.errors import InputError, TraceError
from flowtracer.text.encoding import encode_prompt, encode_rollout, encode_sampled, encode_text, without_end
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


MESSAGES = [{"role": "user", "content": "3 + 4?"}]
OPENED = [*MESSAGES, {"role": "assistant", "content": "It is"}]


def test_prompts_are_encoded_as_the_template_has_them():
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(encode_prompt(tokenizer, MESSAGES)).endswith("3 + 4?<|end|>\n<|start|>assistant\n")
    assert tokenizer.decode(encode_prompt(tokenizer, OPENED)).endswith("assistant\nIt is"), "the response goes on"
    begun = encode_prompt(tokenizer, MESSAGES, opening="\\boxed{7}\n")
    assert tokenizer.decode(begun).endswith("<|start|>assistant\n\\boxed{7}\n")
    assert tokenizer.decode(encode_prompt(tokenizer, "3 + 4 =")) == "3 + 4 ="


@pytest.mark.parametrize("prompt", [MESSAGES, OPENED, "3 + 4 =\n"])
def test_a_rollout_begins_with_its_prompt_alone(prompt):
    tokenizer = tiny_tokenizer()
    encoded = encode_rollout(tokenizer, prompt, "7.")
    assert encoded.token_ids[: encoded.first_response_token].tolist() == encode_prompt(tokenizer, prompt)
    assert encoded.text[encoded.response_start :] == "7."


def test_what_cannot_be_encoded_is_named():
    with pytest.raises(TraceError, match="surrogate"):
        encode_rollout(tiny_tokenizer(), "x", "\ud83d")
    bare = tiny_tokenizer().__class__(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    with pytest.raises(InputError, match="chat template"):
        encode_prompt(bare, MESSAGES)
