"""The causal check of one rollout: hide tokens of the reasoning, ask again, and compare.

1. The reasoning is what the response says before the sentence or line that holds its located answer. Only its tokens
   are candidates; the prompt is never touched, and the answer's sentence is cut off.
2. A cue asks for the answer anew (`answers.py`).
3. Strategies score the tokens on the whole rollout as it was; those that read the same of the model do so together.
   Their top and bottom tokens, and random ones, are hidden from every later token (`rerun.py`), and the answer is
   generated greedily from behind the reasoning.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtracer.checks.masking.answers import Asking
from flowtracer.checks.masking.rerun import Rereader
from flowtracer.checks.masking.scores import TokenScorer
from flowtracer.checks.masking.variants import choose_variants
from flowtracer.credit import Credit
from flowtracer.errors import InputError, TraceError
from flowtracer.model.forward import context_length
from flowtracer.text.answer import AnswerPattern, Miss, locate_answer
from flowtracer.text.encoding import encode_rollout
from flowtracer.text.steps import split_steps
from flowtracer.trace.trace import Rollout

SHARES = (0.05, 0.1, 0.2, 0.4)
LONGEST = 32_768
"""Tokens of prompt and response up to which a rollout is checked: every variant is a forward of them, some twenty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOutcome:
    """What hiding some tokens did."""

    by: str
    end: str
    share: float
    keeps: bool
    draw: int
    answer: str
    changed: bool
    correct: bool | None
    """None where that is not known."""
    log_prob_change: float
    """Of the answer that is given with nothing hidden, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The causal check of one rollout."""

    id: str
    candidates: int
    """Tokens that may be hidden."""
    tokens: int
    """Tokens of prompt and response."""
    answer: str
    """With nothing hidden."""
    gold: str | None
    correct: bool | None
    log_prob: float
    variants: Sequence[VariantOutcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    prompt: list[int]
    response: list[int]
    reasoning: list[int]
    """The first tokens of the response, all of them candidates."""
    answer: str
    """The response's own."""
    asking: Asking


class MaskingCheck:
    """Checks rollouts of one model.

    Args:
        model: A causal transformers model.
        tokenizer: Its tokenizer.
        by: Strategies that score the tokens: names in `CREDITS`, or names with strategies of one's own.
        shares: Shares of the candidates to hide.
        way: "hide" from all later tokens, "replace" by a filler, or "delete".
        cue: What asks for the answer; None for the kind that the response's own answer has.
        draws: Random draws at each share.
        curves: Also hide all but the chosen tokens.
        seed: Of the random draws.
        grade: Whether an answer is right, or None where that is not known; compares with the record's gold answer
            unless given.
        max_new_tokens: Longest answer.
        max_tokens: Tokens of one forward over variants.
        answer_pattern: How responses state their answer, where not in one of the usual ways; as `Tracer` takes it.
        longest: Tokens of prompt and response; a longer rollout is refused, and so is one beyond the model's context.

    Raises:
        InputError: A strategy that gives no token scores, or needs what a stored rollout has not; a share out of range.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        by: Sequence[str] | Mapping[str, Credit] = ("flow",),
        *,
        shares: Sequence[float] = SHARES,
        way: str = "hide",
        cue: str | None = None,
        draws: int = 1,
        curves: bool = True,
        seed: int = 0,
        grade: Callable[[Rollout, str], bool | None] | None = None,
        max_new_tokens: int = 16,
        max_tokens: int = 8192,
        answer_pattern: AnswerPattern | None = None,
        longest: int = LONGEST,
    ) -> None:
        if not shares or not all(0 < share < 1 for share in shares):
            raise InputError(f"expected shares of the tokens to hide within 0 and 1, got {list(shares)}")
        self._tokenizer = tokenizer
        self._scorer = TokenScorer(model, tokenizer, by, answer_pattern)
        self._rereader = Rereader(model, tokenizer, way=way, max_new_tokens=max_new_tokens, max_tokens=max_tokens)
        self._context = context_length(model)
        self._limit = longest
        self._pattern = answer_pattern
        self._longest = max_new_tokens
        self._shares = tuple(shares)
        self._cue = cue
        self._draws = draws
        self._curves = curves
        self._seed = seed
        self._grade = grade

    def check(self, rollout: Rollout) -> Outcome:
        """Check one rollout.

        Raises:
            TraceError: It has no answer, no reasoning before it, or a strategy has nothing to say about it.
        """
        item = self._prepare(rollout)
        seed = zlib.crc32(rollout.digest.encode(), self._seed & 0xFFFFFFFF)  # of what it says, wherever it stands
        asking = item.asking
        candidates_N = np.arange(len(item.reasoning))
        scores = self._scorer.scores(item.prompt, item.response, seed)
        variants = choose_variants(
            candidates_N,
            {name: scores[name][candidates_N] for name in self._scorer.names},
            self._shares,
            draws=self._draws,
            curves=self._curves,
            seed=seed,
        )
        hidden = [variant.hidden for variant in variants]
        whole, *replies = self._rereader.replies(
            item.prompt, item.reasoning, self._ids(asking.cue), hidden, asking.complete, self._draft(item)
        )
        gold = _gold(rollout)
        before = self._read(whole.ids, asking)

        def correct(answer: str) -> bool | None:
            if self._grade is not None:
                return self._grade(rollout, answer)
            return None if gold is None else asking.same(answer, gold)

        outcomes = []
        for variant, reply in zip(variants, replies, strict=True):
            answer = self._read(reply.ids, asking)
            outcomes.append(
                VariantOutcome(
                    by=variant.by,
                    end=variant.end,
                    share=variant.share,
                    keeps=variant.keeps,
                    draw=variant.draw,
                    answer=answer,
                    changed=not asking.same(answer, before),
                    correct=correct(answer),
                    log_prob_change=reply.log_prob - whole.log_prob,
                )
            )
        return Outcome(
            id=rollout.id,
            candidates=len(candidates_N),
            tokens=len(item.prompt) + len(item.response),
            answer=before,
            gold=gold,
            correct=correct(before),
            log_prob=whole.log_prob,
            variants=outcomes,
        )

    def _prepare(self, rollout: Rollout) -> _Prepared:
        text = encode_rollout(self._tokenizer, rollout.prompt, rollout.response)
        response = text.text[text.response_start :]
        found = locate_answer(response, rollout.answer, self._pattern)
        if isinstance(found, Miss):
            raise TraceError(found.value, found.message)
        last = next(step for step in split_steps(response) if step.stop > found.span.start)
        # A cue brings its own line break.
        end = text.response_start + len(response[: last.start].rstrip())
        first = text.first_response_token
        stop = int((text.offsets[:, 0] < end).sum())
        if first == 0:
            raise TraceError("empty_prompt", "expected a prompt of at least one token, got none")
        if stop <= first:
            raise TraceError("no_reasoning", "expected reasoning before the answer's sentence, got none to hide")
        asking = Asking.after(found, self._cue)
        longest = max(len(text.token_ids), stop + len(self._ids(asking.cue)) + self._longest)
        if longest > self._limit:
            raise TraceError(
                "too_long",
                f"expected at most {self._limit} tokens, got {longest}, each to be read again for every variant; "
                "allow more with longest",
            )
        if self._context is not None and longest > self._context:
            raise TraceError(
                "too_long",
                f"expected at most {self._context} tokens, the model's context, got {longest}; "
                "shorten the prompt or the response",
            )
        ids = [int(token) for token in text.token_ids]
        return _Prepared(
            prompt=ids[:first],
            response=ids[first:],
            reasoning=ids[first:stop],
            answer=found.text.strip(),
            asking=asking,
        )

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _draft(self, item: _Prepared) -> list[int]:
        """What the response answered, as the model would say it behind the cue."""
        return self._ids(item.answer if item.asking.cue.endswith(("{", ">", " ")) else f" {item.answer}")

    def _read(self, ids: Sequence[int], asking: Asking) -> str:
        """The answer within generated tokens."""
        return asking.read(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _gold(rollout: Rollout) -> str | None:
    """The right answer, where the record had one."""
    names = ("gold", "answer", "ground_truth")
    found = next((rollout.metadata[name] for name in names if rollout.metadata.get(name) is not None), None)
    if found is None:
        return None
    located = locate_answer(str(found))
    return str(found).strip() if isinstance(located, Miss) else located.text
