"""The tokenizer of nano: byte-level BPE whose merges spell out the pieces of its tasks, and bytes for all else.

1. A text splits into whole numbers, the fixed phrases of the tasks, and single characters.
2. Byte-level BPE is trained on the wanted pieces alone until each is one token. Any other text still has tokens:
   its bytes.
3. Two special tokens mark the turns, one ends a response, one pads.
"""

from __future__ import annotations

from string import ascii_lowercase

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# A name together with what says how it is used is one token, so that looking up its definition or its value is
# copying what followed the same token before: the first thing that small transformers learn to do.
NAMES = tuple(f"{letter}{use}" for letter in ascii_lowercase for use in ("=", " is "))
PHRASES = (
    *("<answer>", "</answer>", "Make ", " from ", ", ", "; ", ". ", ".\n", "?", "yes\n", "no\n", "give up\n"),
    *NAMES,
)
LARGEST = 250

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    + ASSISTANT
    + "{{ message['content'] }}"
    + END
    + "{% else %}"
    + USER
    + "{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that loads with AutoTokenizer once saved."""
    pieces = [*PHRASES, *map(str, range(LARGEST + 1))]
    tokenizer = Tokenizer(models.BPE())
    phrases = "|".join(phrase.replace(".", r"\.").replace("?", r"\?") for phrase in PHRASES)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"{phrases}|\d+|[\s\S]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left", model_max_length=512
    )
    fast.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT]})
    fast.chat_template = CHAT_TEMPLATE
    return fast
