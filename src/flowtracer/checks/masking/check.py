r"""The causal check of one rollout: hide tokens of the reasoning, ask again, and compare.

1. The reasoning is what the response says before the sentence or line that holds its located answer. Only its tokens
   are candidates; the prompt is never touched, and the answer's sentence is cut off.
2. A cue asks for the answer anew: `\nThe answer is`, up to `\boxed{` where the response's own answer is boxed, or
   `\n<answer>` where it is tagged. It never quotes the response, whose last sentence may state the answer twice.
3. Strategies score the tokens on the whole rollout as it was. Their top and bottom tokens, and random ones, are hidden
   from every later token (`rerun.py`), and the answer is generated greedily from behind the reasoning.
4. Where the response's own answer is a number, so is what is read: the first that is generated, which also ends the
   generation. Other answers are compared as text without spaces.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from flowtracer.checks.masking.rerun import Rereader
from flowtracer.checks.masking.variants import choose_variants
from flowtracer.credit import Credit, Signals, make_credit, needs_of
from flowtracer.errors import InputError, TraceError
from flowtracer.shapes import Float, ndarray
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled
from flowtracer.text.answer import Miss, locate_answer
from flowtracer.text.encoding import encode_text, is_unicode, prompt_text
from flowtracer.text.steps import split_steps
from flowtracer.trace.trace import Rollout

SHARES = (0.05, 0.1, 0.2, 0.4)

# What asks for the answer, and what closes it, by the rule that located the response's own.
_CUES = {"boxed": ("\nThe answer is \\boxed{", "}"), "answer_tag": ("\n<answer>", "</answer>")}
_PLAIN_CUE = ("\nThe answer is", "\n")


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
    cue: str
    closing: str
    numeric: bool


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
    ) -> None:
        if not shares or not all(0 < share < 1 for share in shares):
            raise InputError(f"expected shares of the tokens to hide within 0 and 1, got {list(shares)}")
        chosen = dict(by) if isinstance(by, Mapping) else {name: make_credit(name) for name in by}
        for name, credit in chosen.items():
            if not hasattr(credit, "scores"):
                raise InputError(f"expected strategies that score tokens, got {name!r}, which has no scores")
            if lacking := needs_of(credit) & {"group", "gold", "gain"}:
                raise InputError(f"expected strategies that one rollout is enough for, got {name!r}: {sorted(lacking)}")
        self._tokenizer = tokenizer
        self._readers = {name: (credit, SignalReader(model, tokenizer, credit)) for name, credit in chosen.items()}
        self._rereader = Rereader(model, tokenizer, way=way, max_new_tokens=max_new_tokens, max_tokens=max_tokens)
        self._device = model.device
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
        seed = zlib.crc32(rollout.id.encode(), self._seed & 0xFFFFFFFF)
        candidates_N = np.arange(len(item.reasoning))
        variants = choose_variants(
            candidates_N,
            {name: self._scores(item, name, seed)[candidates_N] for name in self._readers},
            self._shares,
            draws=self._draws,
            curves=self._curves,
            seed=seed,
        )
        cue = list(self._tokenizer(item.cue, add_special_tokens=False)["input_ids"])
        hidden = [variant.hidden for variant in variants]
        whole, *replies = self._rereader.replies(
            item.prompt, item.reasoning, cue, hidden, lambda text: _complete(text, item), self._draft(item)
        )
        gold = _gold(rollout)
        before = self._read(whole.ids, item)

        def correct(answer: str) -> bool | None:
            if self._grade is not None:
                return self._grade(rollout, answer)
            return None if gold is None else same_answer(answer, gold, numeric=item.numeric)

        outcomes = []
        for variant, reply in zip(variants, replies, strict=True):
            answer = self._read(reply.ids, item)
            outcomes.append(
                VariantOutcome(
                    by=variant.by,
                    end=variant.end,
                    share=variant.share,
                    keeps=variant.keeps,
                    draw=variant.draw,
                    answer=answer,
                    changed=not same_answer(answer, before, numeric=item.numeric),
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
        asked, templated = prompt_text(self._tokenizer, rollout.prompt)
        if not is_unicode(asked + rollout.response):
            raise TraceError("invalid_unicode", "expected text in Unicode, got half of a surrogate pair")
        text = encode_text(self._tokenizer, asked, rollout.response, special_tokens=not templated)
        response = text.text[text.response_start :]
        found = locate_answer(response, rollout.answer)
        if isinstance(found, Miss):
            raise TraceError(found.value, found.message)
        last = next(step for step in split_steps(response) if step.stop > found.span.start)
        # A cue brings its own line break.
        end = text.response_start + len(response[: last.start].rstrip())
        first = int(np.argmax(text.offsets[:, 1] > text.response_start))
        stop = int((text.offsets[:, 0] < end).sum())
        if first == 0:
            raise TraceError("empty_prompt", "expected a prompt of at least one token, got none")
        if stop <= first:
            raise TraceError("no_reasoning", "expected reasoning before the answer's sentence, got none to hide")
        cue, closing = _CUES.get(found.rule, _PLAIN_CUE) if self._cue is None else (self._cue, "\n")
        ids = [int(token) for token in text.token_ids]
        return _Prepared(
            prompt=ids[:first],
            response=ids[first:],
            reasoning=ids[first:stop],
            answer=found.text.strip(),
            cue=cue,
            closing=closing,
            numeric=first_number(found.text) is not None and not re.search(r"[-+*/=]\s*\d", found.text.lstrip("-+ ")),
        )

    def _draft(self, item: _Prepared) -> list[int]:
        """What the response answered, as the model would say it behind the cue."""
        text = item.answer if item.cue.endswith(("{", ">", " ")) else f" {item.answer}"
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _scores(self, item: _Prepared, name: str, seed: int) -> Float[ndarray, " R"]:
        """A strategy's scores of the response's tokens."""
        credit, reader = self._readers[name]
        ids_1P, ids_1R = (torch.tensor([ids], device=self._device) for ids in (item.prompt, item.response))
        sampled = Sampled(
            prompt_ids_BP=ids_1P,
            prompt_mask_BP=torch.ones_like(ids_1P),
            response_ids_BR=ids_1R,
            response_mask_BR=torch.ones_like(ids_1R),
        )
        seeds_B = (seed,)
        readings, _ = reader.read(sampled, seeds_B)
        mask_BR = sampled.response_mask_BR.bool()
        ones_B = torch.ones(1, device=self._device)
        signals = Signals(mask_BR=mask_BR, advantages_B=ones_B, seeds_B=seeds_B, readings=readings)
        speaks = getattr(credit, "speaks", None)
        if speaks is not None and not bool(speaks(signals)[0]):
            raise TraceError("no_scores", f"expected scores by {name!r}, which has nothing to say about this rollout")
        scores_BR: torch.Tensor = credit.scores(signals)  # type: ignore[attr-defined]  # checked at construction
        return scores_BR[0].double().cpu().numpy()

    def _read(self, ids: Sequence[int], item: _Prepared) -> str:
        """The answer within generated tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True).lstrip()
        text = text.split(item.closing)[0].split("\n")[0].strip()
        number = first_number(text) if item.numeric else None
        return text if number is None else str(number)


def _complete(text: str, item: _Prepared) -> bool:
    """Whether an answer has ended: behind its number, at its closing mark, or with its line."""
    text = text.lstrip()
    return (item.numeric and _ENDED_NUMBER.search(text) is not None) or item.closing in text or "\n" in text


def _gold(rollout: Rollout) -> str | None:
    """The right answer, where the record had one."""
    names = ("gold", "answer", "ground_truth")
    found = next((rollout.metadata[name] for name in names if rollout.metadata.get(name) is not None), None)
    if found is None:
        return None
    located = locate_answer(str(found))
    return str(found).strip() if isinstance(located, Miss) else located.text


_NUMBER = re.compile(r"[-−]?\s*[$€£]?\s*(\d[\d,]*(?:\.\d+)?|\.\d+)")  # noqa: RUF001 - the minus sign is looked for

_ENDED_NUMBER = re.compile(r"\d(?:[^\d.,/]|[.,](?:\D))")


def first_number(text: str) -> Fraction | None:
    """The first number of a text, thousands separators and a currency sign left out."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    value = Fraction(found.group(1).replace(",", ""))
    return -value if found.group().lstrip()[0] in "-−" else value  # noqa: RUF001


def same_answer(one: str, other: str, *, numeric: bool) -> bool:
    """Whether two answers are the same: as numbers where both hold one, else as text without spaces."""
    numbers = (first_number(one), first_number(other)) if numeric else (None, None)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return "".join(one.split()).casefold() == "".join(other.split()).casefold()
