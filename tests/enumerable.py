"""A task and a model whose responses can all be written down: at most two tokens over a vocabulary of six."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from flowtracer.checks.meter.rollouts import Group
from flowtracer.tasks import Problem, Reason, Verdict

WORDS = ["<pad>", "<end>", "a", "b", "c", "d"]
PAD, END, A, B, C, D = range(6)
PROMPTS = ("a b", "c")


@functools.cache
def toy_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = "{{ messages[0]['content'] }}"
    return fast


@functools.cache
def _made(dtype: torch.dtype):
    config = AutoConfig.for_model(
        "llama",
        vocab_size=len(WORDS),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=0.5,
        pad_token_id=PAD,
        eos_token_id=END,
    )
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def toy_model(dtype: torch.dtype = torch.float64):
    return copy.deepcopy(_made(dtype))


@dataclass(frozen=True)
class Toy:
    """An answer is right when it is "b", or ends in "c" after the second prompt."""

    name: ClassVar[str] = "toy"

    def problems(self, split: str, n: int, *, seed: int = 0) -> list[Problem]:
        return [
            Problem(
                id=f"toy/{split}/{seed}/{number}",
                key=str(number),
                prompt=[{"role": "user", "content": PROMPTS[number % 2]}],
                gold="b",
                facts={"second": number % 2 == 1},
            )
            for number in range(n)
        ]

    def verify(self, problem: Problem, response: str) -> Verdict:
        words = response.split()
        right = words[:1] == ["b"] or (problem.facts["second"] and words[-1:] == ["c"])
        return Verdict(reason=Reason.CORRECT if right else Reason.WRONG_VALUE)

    def wrong_answers(self, problem: Problem) -> list[str]:
        return []


def every_response() -> list[tuple[int, ...]]:
    """All responses of at most two tokens; the token that ends a turn ends a response."""
    return [(END,), *((first, second) for first in range(6) if first != END for second in range(6))]


def every_group(problem: Problem, responses: list[tuple[int, ...]]) -> list[Group]:
    """All ordered pairs of responses to a problem."""
    tokenizer = toy_tokenizer()
    prompt_ids = tokenizer(problem.prompt[0]["content"])["input_ids"]
    texts = tokenizer.batch_decode([list(ids) for ids in responses], skip_special_tokens=True)
    rewards = [float(Toy().verify(problem, text).correct) for text in texts]
    return [
        Group(problem=problem, prompt_ids=prompt_ids, response_ids=[one, other], rewards=[rewards[i], rewards[j]])
        for i, one in enumerate(responses)
        for j, other in enumerate(responses)
    ]
