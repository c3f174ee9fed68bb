"""What the model would say if it knew, or were asked for, the gold answer.

1. *Gain* of a token: its log-probability behind a prompt that reveals the gold answer, minus that behind the prompt as
   it is. Messages are told at the end of the last user message, text prompts before they begin (`HINT`).
2. *Score* of a prefix: `p(gold | prompt, response up to a token, cue)`, the product over the gold answer's tokens, at
   temperature 1. Cue and gold answer are encoded apart, so that their border is one between tokens.

Both texts are our own choice: the papers that use them do not give theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float
from flowtracer.signals.logits import token_logits
from flowtracer.signals.sampled import Prompt, Sampled
from flowtracer.text.encoding import encode_prompt, without_end

HINT = "(The correct answer is {gold}.)"


def reveal(prompt: Prompt, gold: str) -> Prompt:
    """The prompt with the gold answer given away.

    Raises:
        InputError: Chat messages without a user message of text.
    """
    hint = HINT.format(gold=gold)
    if isinstance(prompt, str):
        return f"{hint}\n{prompt}"
    messages = [dict(message) for message in prompt]
    told = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if told is None or not isinstance(told["content"], str):
        raise InputError("expected a user message of text to reveal the gold answer in, got none")
    told["content"] += f"\n\n{hint}"
    return messages


def read_gain(
    reader: LogitReader,
    tokenizer: Any,
    sampled: Sampled,
    log_prob_BR: Float[Tensor, "B R"],
    *,
    temperature: float = 1.0,
    rows_per_forward: int = 8,
    template_options: Mapping[str, Any] | None = None,
) -> Float[Tensor, "B R"]:
    """Gain of each response token; 0 where no gold answer is known."""
    prompts, golds = _asked(sampled)
    known_B = torch.tensor([gold is not None for gold in golds], device=sampled.device)
    told = [
        encode_prompt(tokenizer, prompt if gold is None else reveal(prompt, gold), template_options)
        for prompt, gold in zip(prompts, golds, strict=True)
    ]
    ids_BP, mask_BP = torch.zeros(2, len(told), max(map(len, told)), dtype=torch.long, device=sampled.device)
    for row, ids in enumerate(told):
        ids_BP[row, -len(ids) :] = torch.tensor(ids, device=sampled.device)
        mask_BP[row, -len(ids) :] = 1
    revealed = Sampled(
        prompt_ids_BP=ids_BP,
        prompt_mask_BP=mask_BP,
        response_ids_BR=sampled.response_ids_BR,
        response_mask_BR=sampled.response_mask_BR,
    )
    _, told_BR = token_logits(reader, revealed, temperature=temperature, rows_per_forward=rows_per_forward)
    return torch.where(known_B[:, None], told_BR - log_prob_BR, 0.0)


class PrefixScorer:
    """Scores the gold answer behind prefixes of the responses, as a `GoldScorer` does."""

    def __init__(self, reader: LogitReader, tokenizer: Any, sampled: Sampled, *, rows_per_forward: int = 8) -> None:
        self._reader = reader
        self._tokenizer = tokenizer
        self._sampled = sampled
        self._size = rows_per_forward
        _, self._golds = _asked(sampled)

    def __call__(self, marks_BR: Bool[Tensor, "B R"], cue: str) -> tuple[Float[Tensor, " B"], Float[Tensor, "B R"]]:
        """p(gold) behind the prompt alone, and behind each marked token; 0 where no gold answer is known."""
        sampled = self._sampled
        start_B = torch.zeros(len(sampled), device=sampled.device)
        behind_BR = torch.zeros(marks_BR.shape, device=sampled.device)
        cue_ids = self._encode(cue)
        jobs = [
            (row, place, prefix + cue_ids, self._encode(gold))
            for row, gold in enumerate(self._golds)
            if gold is not None
            for place, prefix in self._prefixes(row, marks_BR[row])
        ]
        jobs.sort(key=lambda job: len(job[2]) + len(job[3]))  # neighbours in length waste no padding
        for first in range(0, len(jobs), self._size):
            batch = jobs[first : first + self._size]
            for (row, place, _, _), score in zip(batch, self._score([job[2:] for job in batch]), strict=True):
                (start_B if place < 0 else behind_BR[:, place])[row] = score
        return start_B, behind_BR

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _prefixes(self, row: int, marks_R: Bool[Tensor, " R"]) -> list[tuple[int, list[int]]]:
        """The prompt alone, as place -1, and the sequence up to each marked token."""
        prompt = self._sampled.prompt_ids_BP[row][self._sampled.prompt_mask_BP[row].bool()].tolist()
        response = self._sampled.response_ids_BR[row].tolist()
        places = marks_R.nonzero().squeeze(-1).tolist()
        return [(place, prompt + without_end(self._tokenizer, response[: place + 1])) for place in [-1, *places]]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Float[Tensor, " N"]:
        """p(continuation | prefix) of a few pairs in one forward."""
        length = max(len(prefix) + len(gold) for prefix, gold in pairs)
        device = self._sampled.device
        ids_BT, mask_BT = torch.zeros(2, len(pairs), length, dtype=torch.long, device=device)
        target_BT = torch.zeros(len(pairs), length, dtype=torch.bool, device=device)
        for row, (prefix, gold) in enumerate(pairs):
            stop = len(prefix) + len(gold)
            ids_BT[row, :stop] = torch.tensor(prefix + gold, device=device)
            mask_BT[row, :stop] = 1
            target_BT[row, len(prefix) : stop] = True
        with evaluating(self._reader.model), torch.no_grad():
            hidden_BTD = self._reader.hidden({"input_ids": ids_BT, "attention_mask": mask_BT})
            log_probs_N = self._reader.log_probs(hidden_BTD[target_BT.roll(-1, 1)], ids_BT[target_BT])
        totals_BT = torch.zeros(len(pairs), length, device=device).masked_scatter(target_BT, log_probs_N)
        return totals_BT.sum(-1).exp()


def _asked(sampled: Sampled) -> tuple[Sequence[Prompt], Sequence[str | None]]:
    """Prompts and gold answers; a strategy that needs them cannot do without."""
    if sampled.prompts is None or sampled.golds is None:
        raise InputError(
            'expected a gold answer beside each prompt, got none: this credit needs a column "gold" in the data set'
        )
    return sampled.prompts, sampled.golds
