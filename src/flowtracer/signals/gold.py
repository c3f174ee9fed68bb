r"""What the model would say if it knew, or were asked for, the gold answer.

1. *Gain* of a token: its log-probability behind a prompt that gives the gold answer away, minus that behind the prompt
   as it is. The words are those of arXiv 2605.27934: the user asks to "reason step by step given the final answer
   within \boxed{}", and the response is made to begin with `\boxed{gold}` and a line break (`reveal`).
2. *Score* of a prefix: `log p(gold | prompt, response up to a token, cue)`, summed over the gold answer's tokens, at
   temperature 1. Cue and gold answer are encoded apart, so that their border is one between tokens.
3. All prefixes of a response are scored in one forward: behind the response stand copies of cue and gold answer, each
   at the positions behind its own prefix, seeing that prefix and itself alone. A model that attends with windows, or
   is found to give other numbers so on a few tokens, runs over each prefix by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.model.forward import device_of, evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float, Int
from flowtracer.signals.logits import token_logits
from flowtracer.signals.sampled import Prompt, Sampled
from flowtracer.text.encoding import encode_prompt, without_end

ASKING = r"Please reason step by step, and put your final answer within \boxed{}."
"""How the source asks; it gives way to `GIVING` where a prompt ends in it."""
GIVING = r"Please reason step by step given the final answer within \boxed{}."

_MASK_ENTRIES = 2**28
"""Entries of one forward's mask, a gigabyte in float32; longer responses are scored prefix by prefix."""


def reveal(prompt: Prompt, gold: str) -> tuple[Prompt, str]:
    """The prompt that gives the gold answer away, and what the response is made to begin with.

    Messages ask so at the end of the last user message; text, whose end may be a template's, where it asked before,
    else in front.

    Raises:
        InputError: Chat messages without a user message of text.
    """
    opening = f"\\boxed{{{gold}}}\n"
    if isinstance(prompt, str):
        before, asked, behind = prompt.rpartition(ASKING)
        return (f"{before}{GIVING}{behind}" if asked else f"{GIVING}\n{prompt}"), opening
    messages = [dict(message) for message in prompt]
    told = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if told is None or not isinstance(told["content"], str):
        raise InputError("expected a user message of text to reveal the gold answer in, got none")
    told["content"] = f"{told['content'].removesuffix(ASKING).rstrip()}\n{GIVING}"
    return messages, opening


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
    prompts, golds = _prompts(sampled), _golds(sampled)
    known_B = torch.tensor([gold is not None for gold in golds], device=sampled.device)
    told = [(prompt, "") if gold is None else reveal(prompt, gold) for prompt, gold in zip(prompts, golds, strict=True)]
    ids = [encode_prompt(tokenizer, prompt, template_options, opening=opening) for prompt, opening in told]
    prompts_only = Sampled.padded([(row, []) for row in ids], sampled.device)
    revealed = Sampled(
        prompt_ids_BP=prompts_only.prompt_ids_BP,
        prompt_mask_BP=prompts_only.prompt_mask_BP,
        response_ids_BR=sampled.response_ids_BR,
        response_mask_BR=sampled.response_mask_BR,
    )
    _, told_BR = token_logits(reader, revealed, temperature=temperature, rows_per_forward=rows_per_forward)
    return torch.where(known_B[:, None], told_BR - log_prob_BR, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A sequence, and what is asked behind some of its prefixes."""

    ids: list[int]
    ends: list[int]
    """Tokens of each prefix."""
    cue: list[int]
    gold: list[int]

    @property
    def copies(self) -> int:
        return len(self.ends) * (len(self.cue) + len(self.gold))


class PrefixScorer:
    """Scores the gold answer behind prefixes of the responses, as a `GoldScorer` does."""

    def __init__(self, reader: LogitReader, tokenizer: Any, sampled: Sampled, *, rows_per_forward: int = 8) -> None:
        self._reader = reader
        self._tokenizer = tokenizer
        self._sampled = sampled
        self._size = rows_per_forward
        self._golds = _golds(sampled)

    def __call__(
        self, marks_BR: Bool[Tensor, "B R"], cue: str, end: str = ""
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B R"]]:
        """Log p of gold and `end` behind the prompt, and behind each marked token; -inf where no gold is known."""
        device = self._sampled.device
        start_B = torch.full((len(self._sampled),), -torch.inf, device=device)
        behind_BR = torch.full(marks_BR.shape, -torch.inf, device=device)
        cue_ids = self._encode(cue)
        jobs = [(row, self._ask(row, marks_BR[row], cue_ids, gold + end)) for row, gold in self._known()]
        jobs.sort(key=lambda job: len(job[1].ids))  # neighbours in length waste no padding
        for batch in self._batches(jobs):
            for (row, _), scores_N in zip(batch, self._score([asked for _, asked in batch]), strict=True):
                start_B[row] = scores_N[0]
                behind_BR[row, marks_BR[row]] = scores_N[1:]
        return start_B, behind_BR

    def _known(self) -> list[tuple[int, str]]:
        return [(row, gold) for row, gold in enumerate(self._golds) if gold is not None]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ask(self, row: int, marks_R: Bool[Tensor, " R"], cue: list[int], gold: str) -> _Asked:
        """The prompt alone, and the sequence up to each marked token."""
        prompt = self._sampled.prompt_ids_BP[row][self._sampled.prompt_mask_BP[row].bool()].tolist()
        response = self._sampled.response_ids_BR[row].tolist()
        marked = marks_R.nonzero().squeeze(-1).tolist()
        ends = [len(prompt) + len(without_end(self._tokenizer, response[: place + 1])) for place in marked]
        ids = [*prompt, *response][: max(ends, default=len(prompt))]
        return _Asked(ids=ids, ends=[len(prompt), *ends], cue=cue, gold=self._encode(gold))

    def _batches(self, jobs: Sequence[tuple[int, _Asked]]) -> list[list[tuple[int, _Asked]]]:
        """Sequences that share a forward."""
        batches: list[list[tuple[int, _Asked]]] = []
        for job in jobs:
            longest = len(job[1].ids) + job[1].copies
            if batches and len(batches[-1]) < min(self._size, _MASK_ENTRIES // longest**2):
                batches[-1].append(job)
            else:
                batches.append([job])
        return batches

    @cached_property
    def _packs(self) -> bool:
        return packs_truly(self._reader)

    def _score(self, batch: Sequence[_Asked]) -> list[Tensor]:
        """Log p(gold) behind each prefix of a few sequences."""
        longest = max(len(asked.ids) + asked.copies for asked in batch)
        if self._packs and longest**2 <= _MASK_ENTRIES:
            return _score_packed(self._reader, batch)
        return [_score_singly(self._reader, asked, self._size) for asked in batch]


def _score_packed(reader: LogitReader, batch: Sequence[_Asked]) -> list[Tensor]:
    """One forward over a few sequences, each with all its copies of cue and gold answer."""
    length = max(len(asked.ids) + asked.copies for asked in batch)
    ids_BT, positions_BT = torch.zeros(2, len(batch), length, dtype=torch.long)
    target_BT = torch.zeros(len(batch), length, dtype=torch.bool)
    seen_BTT = torch.eye(length, dtype=torch.bool).repeat(len(batch), 1, 1)  # padding sees itself, lest it be NaN
    for row, asked in enumerate(batch):
        n, copy = len(asked.ids), [*asked.cue, *asked.gold]
        ids_BT[row, : n + asked.copies] = torch.tensor([*asked.ids, *copy * len(asked.ends)])
        positions_BT[row, :n] = torch.arange(n)
        seen_BTT[row, :n, :n] = _triangle(n)
        for place, end in enumerate(asked.ends):
            own = slice(n + place * len(copy), n + (place + 1) * len(copy))
            positions_BT[row, own] = torch.arange(end, end + len(copy))
            seen_BTT[row, own, :end] = True
            seen_BTT[row, own, own] = _triangle(len(copy))
            target_BT[row, own.stop - len(asked.gold) : own.stop] = True
    weight = reader.model.get_input_embeddings().weight
    mask_BTT = torch.zeros(seen_BTT.shape, dtype=weight.dtype).masked_fill_(~seen_BTT, torch.finfo(weight.dtype).min)
    log_probs_N = _log_probs(
        reader,
        {"input_ids": ids_BT, "attention_mask": mask_BTT[:, None], "position_ids": positions_BT},
        _before(batch, target_BT),
        target_BT,
    )
    parts = log_probs_N.split([len(asked.ends) * len(asked.gold) for asked in batch])
    return [part_N.view(len(asked.ends), len(asked.gold)).sum(-1) for part_N, asked in zip(parts, batch, strict=True)]


def _score_singly(reader: LogitReader, asked: _Asked, size: int) -> Tensor:
    """A row of its own for each prefix of one sequence."""
    scores = []
    for first in range(0, len(asked.ends), size):
        ends = asked.ends[first : first + size]
        rows = [[*asked.ids[:end], *asked.cue, *asked.gold] for end in ends]
        ids_BT, mask_BT = torch.zeros(2, len(rows), max(map(len, rows)), dtype=torch.long)
        target_BT = torch.zeros(ids_BT.shape, dtype=torch.bool)
        for row, ids in enumerate(rows):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
            target_BT[row, len(ids) - len(asked.gold) : len(ids)] = True
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        log_probs_N = _log_probs(reader, inputs, target_BT.roll(-1, 1).nonzero(), target_BT)
        scores.append(log_probs_N.view(len(rows), len(asked.gold)).sum(-1))
    return torch.cat(scores)


def _before(batch: Sequence[_Asked], target_BT: Bool[Tensor, "B T"]) -> Int[Tensor, "N 2"]:
    """Row and column of the position that predicts each target, in their order."""
    before_N2 = target_BT.nonzero() - torch.tensor([0, 1])
    place = 0
    for row, asked in enumerate(batch):
        for end in asked.ends:
            if asked.gold and not asked.cue:  # then the prefix's last token predicts the gold answer's first
                before_N2[place] = torch.tensor([row, end - 1])
            place += len(asked.gold)
    return before_N2


def _log_probs(
    reader: LogitReader,
    inputs: Mapping[str, Tensor],
    before_N2: Int[Tensor, "N 2"],
    target_BT: Bool[Tensor, "B T"],
) -> Float[Tensor, " N"]:
    """Log-probability of each target, predicted one position before it."""
    device = device_of(reader.model)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    with evaluating(reader.model), torch.no_grad():
        hidden_BTD = reader.hidden(inputs)
        row_N, column_N = before_N2.to(hidden_BTD.device).T
        targets_N = inputs["input_ids"][target_BT.to(device)]
        return reader.log_probs(hidden_BTD[row_N, column_N], targets_N.to(hidden_BTD.device))


def _triangle(n: int) -> Bool[Tensor, "N N"]:
    return torch.ones(n, n, dtype=torch.bool).tril()


def _takes_masks(model: Any) -> bool:
    """Whether a model says of itself that a mask and positions are all that its tokens know of their place."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    whole = set(kinds) == {"full_attention"} if kinds else getattr(config, "sliding_window", None) is None
    stateful = getattr(model, "_is_stateful", False) or getattr(config, "alibi", False)
    backend = getattr(config, "_attn_implementation", None) in ("eager", "sdpa")
    positions = "position_ids" in inspect.signature(model.get_decoder().forward).parameters
    return whole and backend and positions and not stateful


def packs_truly(reader: LogitReader) -> bool:
    """Whether the model scores prefixes in one packed forward as it does one by one, seen on a few tokens."""
    if not _takes_masks(reader.model):
        return False
    vocabulary = reader.model.get_input_embeddings().num_embeddings
    ids = [n % vocabulary for n in range(8)]
    asked = _Asked(ids=ids, ends=[3, 6, 8], cue=ids[4:6], gold=ids[1:3])
    (packed_N,) = _score_packed(reader, [asked])
    tolerance = 1e-3 if packed_N.dtype == reader.model.dtype else 5e-2
    return bool((packed_N - _score_singly(reader, asked, 3)).abs().max() <= tolerance)


def _golds(sampled: Sampled) -> Sequence[str | None]:
    """Gold answers; a strategy that needs them cannot do without."""
    if sampled.golds is None:
        raise InputError(
            'expected a gold answer beside each prompt, got none: this credit needs a column "gold" in the data set'
        )
    return sampled.golds


def _prompts(sampled: Sampled) -> Sequence[Prompt]:
    """Prompts as they were before they became tokens, to be written anew with the gold answer."""
    if sampled.prompts is None:
        raise InputError("expected the prompts as text or messages, got token ids alone: give `Sampled` its prompts")
    return sampled.prompts
