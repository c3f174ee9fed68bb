"""Answers of a model that reads a rollout without some of its tokens.

1. The prompt runs once; its keys and values serve every variant.
2. With nothing hidden, reasoning and cue run on them, and the answer is generated greedily. A draft of it, such as what
   the rollout itself answered, is shown behind the cue: tokens that greedy decoding agrees with need no step.
3. The variants run in batches of similar length: reasoning, cue and that same answer. *Hidden*: no later token attends
   to it, and all keep their positions. What nobody attends to need not be computed, so it is left out of the batch;
   only where a layer counts a window of tokens does it stay, with its column of the attention mask at 0.
   *Replaced*: a filler stands in its place. *Deleted*: it is left out, and later tokens move up.
4. As long as the most probable tokens are those of the answer, greedy decoding would have given them. Only the
   variants that part from it are decoded further, from where they part, with the rest of the answer hidden from them;
   all of a rollout's together, as far as they fit one batch.

So one forward gives a variant's log p(answer), and whether its answer changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from flowtracer.errors import InputError
from flowtracer.model.forward import accepted, cache_argument, windowed
from flowtracer.shapes import Float, Int

WAYS = ("hide", "replace", "delete")
FILLER = " "

_PADDING = 1.25
"""Variants run together while the longest is at most so much longer than the shortest."""

Ends = Callable[[str], bool]
"""Whether the text of an answer is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rereading:
    """What a model answered."""

    ids: tuple[int, ...]
    """Generated tokens, the one that ended the answer included."""
    log_prob: float
    """Log-probability of the answer that is given with nothing hidden, without the token that ended it."""


class Rereader:
    """Has a model answer from a rollout of which some tokens are hidden.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer.
        way: "hide", "replace" or "delete".
        max_new_tokens: Longest answer.
        max_tokens: Tokens of one forward over variants.

    Raises:
        InputError: A way that does not exist, or a model whose layers carry more than attention can hide.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, way: str = "hide", max_new_tokens: int = 16, max_tokens: int = 8192
    ) -> None:
        if way not in WAYS:
            raise InputError(f"expected a way of hiding among {', '.join(WAYS)}, got {way!r}")
        self._model = model
        self._tokenizer = tokenizer
        self._longest = max_new_tokens
        self._budget = max_tokens
        self._replaces, self._moves_up = way == "replace", way == "delete"
        self._filler = tokenizer(FILLER, add_special_tokens=False)["input_ids"][0]
        self._special = frozenset(tokenizer.all_special_ids)
        config = model.config.get_text_config(decoder=True)
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if not all(kind.endswith("attention") and "linear" not in kind for kind in kinds):
            raise InputError(f"expected layers that attend, got {sorted(kinds)}: state cannot be hidden from")
        self._windowed = windowed(model)
        self._keeps_columns = self._replaces or (way == "hide" and self._windowed)
        self._padding = 1.0 if self._windowed else _PADDING
        self._cache = cache_argument(model)

    @torch.no_grad()
    def replies(
        self,
        prompt: Sequence[int],
        reasoning: Sequence[int],
        cue: Sequence[int],
        hidden: Sequence[Collection[int]],
        ends: Ends,
        draft: Sequence[int] = (),
    ) -> list[Rereading]:
        """The reply with nothing hidden, then that of each variant.

        Args:
            prompt: Token ids that nothing is hidden of.
            reasoning: Token ids of which some may be hidden.
            cue: Token ids that ask for the answer.
            hidden: Places in the reasoning that each variant hides.
            ends: Whether the text of an answer is complete.
            draft: Tokens that the answer may begin with; they change what it costs, not what it is.
        """
        ids_1P = torch.tensor([list(prompt)], device=self._model.device)
        cache = DynamicCache(config=self._model.config)
        self._model(ids_1P, use_cache=True, **self._few_logits(1), **{self._cache: cache})
        task = _Task(cache=cache, start=len(prompt), reasoning=reasoning, cue=cue, ends=ends)
        answer, log_probs = self._answer(task, draft)
        whole = Rereading(ids=tuple(answer), log_prob=sum(log_probs[: self._scored(task, answer)]))
        found: dict[int, Rereading] = {}
        parted: list[_Parted] = []
        for group in self._groups(hidden, len(reasoning), len(prompt) + len(cue) + len(answer) - 1):
            replies, parting = self._show(task, group, [hidden[number] for number in group], answer)
            found |= replies
            # A cache that holds only a window cannot be joined with another.
            if parted and (self._windowed or sum(map(len, [*parted, *parting])) > self._budget):
                self._decode_further(task, parted, found)
                parted = []
            parted += parting
        self._decode_further(task, parted, found)
        return [whole, *(found[number] for number in range(len(found)))]

    def _answer(self, task: _Task, draft: Sequence[int]) -> tuple[list[int], list[float]]:
        """The answer with nothing hidden, and the log-probability of each of its tokens."""
        # A draft must leave the last token to decoding; shown and masked ones would fill a window.
        shown = [] if self._windowed else list(draft[: self._longest - 1])
        while shown and (task.ends(self._tokenizer.decode(shown)) or self._special & set(shown)):
            shown.pop()
        state = self._forward(task, self._block(task, [*task.cue, *shown], [()]), keep=len(shown) + 1)
        shown_A = torch.tensor(shown, dtype=torch.long, device=self._model.device)
        agreed_1 = (state.logits_BAV[:, :-1].argmax(-1) == shown_A).long().cumprod(-1).sum(-1)
        agreed = int(agreed_1)
        log_probs = state.logits_BAV[0].log_softmax(-1)[torch.arange(agreed), shown_A[:agreed]].tolist()
        if shown:
            state = self._rewind(state, len(shown), agreed_1, torch.zeros_like(agreed_1))
        (answer,), (decoded,) = self._decode(state, task.ends, [shown[:agreed]])
        return answer, log_probs + decoded

    def _scored(self, task: _Task, answer: Sequence[int]) -> int:
        """How many tokens are the answer's own: the one that ended it is none, and one that was cut off has no such."""
        ended = answer[-1] in self._special or task.ends(self._tokenizer.decode(list(answer)))
        return max(1, len(answer) - ended)

    def _show(
        self, task: _Task, numbers: Sequence[int], variants: Sequence[Collection[int]], answer: list[int]
    ) -> tuple[dict[int, Rereading], list[_Parted]]:
        """Replies of variants that run together, all of which are shown the answer, and those that part from it."""
        block = self._block(task, [*task.cue, *answer[:-1]], variants)
        state = self._forward(task, block, keep=len(answer))
        answer_A = torch.tensor(answer, device=self._model.device)
        agreed_B = (state.logits_BAV.argmax(-1) == answer_A).long().cumprod(-1).sum(-1)
        log_probs_BA = state.logits_BAV.log_softmax(-1)[:, torch.arange(len(answer)), answer_A]
        totals = log_probs_BA[:, : self._scored(task, answer)].sum(-1).tolist()
        replies = {
            number: Rereading(ids=tuple(answer), log_prob=total) for number, total in zip(numbers, totals, strict=True)
        }
        parting_N = (agreed_B < len(answer)).nonzero().squeeze(-1)
        if not len(parting_N):
            return replies, []
        parting = parting_N.tolist()
        if self._windowed:  # tokens that were shown and masked would fill the window
            block = self._block(task, task.cue, [variants[place] for place in parting])
            state, started = self._forward(task, block, keep=1), [answer[:0] for _ in parting]
        else:
            state = self._rewind(state, len(answer) - 1, agreed_B, parting_N)
            started = [answer[:agreed] for agreed in agreed_B[parting_N].tolist()]
        return replies, [_Parted(numbers=[numbers[place] for place in parting], started=started, state=state)]

    def _decode_further(self, task: _Task, parted: Sequence[_Parted], found: dict[int, Rereading]) -> None:
        """Decode what parts from the answer, and put it in the place of the answer."""
        if not parted:
            return
        started = [ids for some in parted for ids in some.started]
        answers, _ = self._decode(_joined([some.state for some in parted]), task.ends, started)
        for number, ids in zip((number for some in parted for number in some.numbers), answers, strict=True):
            found[number] = replace(found[number], ids=tuple(ids))

    def _groups(self, variants: Sequence[Collection[int]], length: int, rest: int) -> list[list[int]]:
        """Numbers of the variants that run together: of similar length, and within the budget of tokens."""
        widths = [rest + length - (0 if self._keeps_columns else len(set(places))) for places in variants]
        groups: list[list[int]] = []
        for number in sorted(range(len(variants)), key=lambda number: widths[number]):
            width, group = widths[number], groups[-1] if groups else []
            if group and (len(group) + 1) * width <= self._budget and width <= self._padding * widths[group[0]]:
                group.append(number)
            else:
                groups.append([number])
        return groups

    def _block(self, task: _Task, rest: Sequence[int], variants: Sequence[Collection[int]]) -> _Block:
        """Each variant's tokens as (id, seen, position), padded on the left where some are left out."""
        rows = [self._row(task, rest, frozenset(places)) for places in variants]
        width = max(map(len, rows))
        padded = [[(0, 0, 0)] * (width - len(row)) + row for row in rows]
        ids_BW, seen_BW, positions_BW = torch.tensor(padded, device=self._model.device).unbind(-1)
        mask_BT = torch.cat([seen_BW.new_ones(len(rows), task.start), seen_BW], 1)
        return _Block(ids_BW=ids_BW, mask_BT=mask_BT, positions_BW=positions_BW)

    def _row(self, task: _Task, rest: Sequence[int], gone: frozenset[int]) -> list[tuple[int, int, int]]:
        length = len(task.reasoning)
        kept = [place for place in range(length) if self._keeps_columns or place not in gone]
        row = []
        for nth, place in enumerate(kept):
            token = self._filler if self._replaces and place in gone else task.reasoning[place]
            seen = int(self._replaces or place not in gone)
            row.append((token, seen, task.start + (nth if self._moves_up else place)))
        end = task.start + (len(kept) if self._moves_up else length)
        return row + [(token, 1, end + nth) for nth, token in enumerate(rest)]

    def _forward(self, task: _Task, block: _Block, *, keep: int) -> _State:
        """Run a block of variants behind the prompt's keys and values."""
        cache = copy.deepcopy(task.cache)
        if len(block.ids_BW) > 1:
            cache.batch_repeat_interleave(len(block.ids_BW))
        output = self._model(
            input_ids=block.ids_BW,
            attention_mask=block.mask_BT,
            position_ids=block.positions_BW,
            use_cache=True,
            **self._few_logits(keep),
            **{self._cache: cache},
        )
        return _State(
            cache=cache,
            mask_BT=block.mask_BT,
            next_B=block.positions_BW[:, -1] + 1,
            logits_BAV=output.logits[:, -keep:].float(),
        )

    def _few_logits(self, count: int) -> dict[str, int]:
        """What asks for the logits of the last positions alone, of a model that knows how."""
        return accepted(self._model.forward, {"logits_to_keep": count})

    def _rewind(self, state: _State, shown: int, agreed_B: Int[Tensor, " B"], parting_N: Int[Tensor, " N"]) -> _State:
        """The variants that part from an answer of which so many tokens were shown, at the place where they part."""
        kept_N = agreed_B[parting_N]
        state.cache.batch_select_indices(parting_N)
        # What was shown of the answer beyond the parting is no part of the variant's own.
        mask_NT = state.mask_BT[parting_N]
        mask_NT[:, mask_NT.shape[1] - shown :] *= torch.arange(shown, device=kept_N.device) < kept_N[:, None]
        return _State(
            cache=state.cache,
            mask_BT=mask_NT,
            next_B=state.next_B[parting_N] - shown + kept_N,
            logits_BAV=state.logits_BAV[parting_N, kept_N][:, None],
        )

    def _decode(self, state: _State, ends: Ends, started: list[list[int]]) -> tuple[list[list[int]], list[list[float]]]:
        """Greedy decoding of several sequences that may have begun, each until its answer is complete.

        The sequences, and the log-probability of each token that was decoded here.
        """
        answers = [list(ids) for ids in started]
        log_probs: list[list[float]] = [[] for _ in answers]
        done = [False] * len(answers)
        while True:
            best_B = state.logits_BAV[:, -1].argmax(-1)
            log_probs_B = state.logits_BAV[:, -1].log_softmax(-1).gather(1, best_B[:, None]).squeeze(1)
            for row, (token, log_prob) in enumerate(zip(best_B.tolist(), log_probs_B.tolist(), strict=True)):
                if not done[row]:
                    answers[row].append(token)
                    log_probs[row].append(log_prob)
                    complete = ends(self._tokenizer.decode(answers[row])) or len(answers[row]) >= self._longest
                    done[row] = complete or token in self._special
            if all(done):
                return answers, log_probs
            state.mask_BT = torch.cat([state.mask_BT, state.mask_BT.new_ones(len(answers), 1)], 1)
            output = self._model(
                input_ids=best_B[:, None],
                attention_mask=state.mask_BT,
                position_ids=state.next_B[:, None],
                use_cache=True,
                **{self._cache: state.cache},
            )
            state.logits_BAV = output.logits[:, -1:].float()
            state.next_B = state.next_B + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What all variants of a rollout share."""

    cache: Any
    """Keys and values of the prompt."""
    start: int
    """Tokens of the prompt."""
    reasoning: Sequence[int]
    cue: Sequence[int]
    ends: Ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    ids_BW: Int[Tensor, "B W"]
    mask_BT: Int[Tensor, "B T"]
    """Which keys may be attended to, of the prompt and of the block."""
    positions_BW: Int[Tensor, "B W"]


@dataclass(slots=True, kw_only=True)
class _State:
    """Where decoding stands."""

    cache: Any
    mask_BT: Int[Tensor, "B T"]
    next_B: Int[Tensor, " B"]
    """Position of the next token."""
    logits_BAV: Float[Tensor, "B A V"]
    """Of the last positions, over the vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parted:
    """Variants that part from the answer, at the places where they part."""

    numbers: list[int]
    started: list[list[int]]
    """Their tokens so far."""
    state: _State

    def __len__(self) -> int:
        """Tokens of the batch, padding included."""
        return self.state.mask_BT.numel()


def _joined(states: Sequence[_State]) -> _State:
    """All sequences as one batch, padded on the left."""
    if len(states) == 1:
        return states[0]
    width = max(state.mask_BT.shape[1] for state in states)
    pads = [width - state.mask_BT.shape[1] for state in states]
    cache = states[0].cache
    for layers in zip(*(state.cache.layers for state in states), strict=True):
        for name in ("keys", "values"):
            padded = [pad(getattr(layer, name), (0, 0, left, 0)) for layer, left in zip(layers, pads, strict=True)]
            setattr(layers[0], name, torch.cat(padded))
    return _State(
        cache=cache,
        mask_BT=torch.cat([pad(state.mask_BT, (left, 0)) for state, left in zip(states, pads, strict=True)]),
        next_B=torch.cat([state.next_B for state in states]),
        logits_BAV=torch.cat([state.logits_BAV for state in states]),
    )
