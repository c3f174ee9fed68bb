"""Credit for a training loop of one's own: token ids and advantages in, an advantage for each token out.

1. Ids of any length are padded, prompts on the left, responses on the right.
2. What the strategy reads is computed by `flowtracer.signals`, by forwards of its own; responses to equal prompts are a
   group.
3. The strategy gives each token its advantage, as it does in `flowtracer.rl.trl_trainer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowtracer.credit import Credit, Signals, make_credit, needs_of, token_factors
from flowtracer.credit.signals import OF_IMAGES, GroupSignals
from flowtracer.errors import InputError
from flowtracer.model.forward import device_of, image_token_of
from flowtracer.rl.advantages import group_of, response_seeds, token_advantages
from flowtracer.shapes import Bool, Float
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Prompt, Sampled
from flowtracer.text.answer import AnswerPattern

Ids = Sequence[Sequence[int]]
"""Token ids of each sequence, without padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditWeights:
    """What each response token is worth; padded on the right, in the order of the responses."""

    advantages_BR: Float[Tensor, "B R"]
    """Advantage of each token, which takes the place of the response's own in a loss; 0 where `mask_BR` is false."""
    weights_BR: Float[Tensor, "B R"]
    """What the response's advantage was multiplied by; 1 where it is 0, and 0 where `mask_BR` is false."""
    mask_BR: Bool[Tensor, "B R"]
    """Tokens that count."""
    misses: Mapping[str, int]
    """How many responses have no answer or no flow, and so their own advantage on every token, by named reason."""


def credit_weights(
    model: Any,
    tokenizer: Any,
    prompt_ids: Ids,
    response_ids: Ids,
    advantages: Sequence[float] | Float[Tensor, " B"],
    credit: str | Credit = "flow",
    *,
    options: Mapping[str, Any] | None = None,
    counted: Sequence[Sequence[bool]] | None = None,
    rewards: Sequence[float] | Float[Tensor, " B"] | None = None,
    golds: Sequence[str | None] | None = None,
    prompts: Sequence[Prompt] | None = None,
    normalise: bool = False,
    temperature: float = 1.0,
    trained: float = 0.0,
    seed: int = 0,
    rows_per_forward: int = 8,
    sharded: bool = False,
    answer_pattern: AnswerPattern | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> CreditWeights:
    """Advantages by token for a training loop of one's own, from sampled token ids.

    On the same sequences they are those of `FlowGRPOTrainer`. Nothing has a gradient; the model stays in its mode.

    Args:
        model: The policy, a transformers model.
        tokenizer: Its tokenizer, to find the answers.
        prompt_ids: Token ids of each response's prompt, without padding.
        response_ids: Token ids of each response as sampled, with the token that ends it, without padding.
        advantages: Of each response.
        credit: A name in `CREDITS`, or any strategy of your own.
        options: Options of a strategy given by name.
        counted: Which tokens of each response the loss counts, such as not those of a tool; None for all.
        rewards: Of each response, where the strategy looks at the group: the responses to equal prompts.
        golds: The right answer to each prompt, where the strategy asks for it; None where it is not known.
        prompts: The prompts as text or chat messages, where the strategy writes them anew (`likelihood_gain`).
        normalise: Keep the mean size of each response's advantages: for factors, a mean of 1.
        temperature: What logits are divided by as the policy samples.
        trained: Share of the training that is done, from 0 to 1.
        seed: Of strategies that draw; give another one at each step.
        rows_per_forward: Sequences in one forward.
        sharded: The model is FSDP's or ZeRO-3's: all processes must call with as many responses, and run alike.
        answer_pattern: How responses state their answer, where not in a usual way: a pattern, or a function.
        template_options: What the chat template is given, where a strategy writes prompts anew.

    Raises:
        InputError: Lists, a strategy, options or layers that do not fit, or something missing that is read; named.
        CaptureError: The model's attention or logits cannot be read.
    """
    given = {"rewards": rewards, "golds": golds, "prompts": prompts}
    strategy = _strategy(model, credit, options, prompt_ids, response_ids, advantages, given)
    sampled, signals = _batch(model, tokenizer, prompt_ids, response_ids, advantages, counted, prompts, golds, seed)
    how: dict[str, Any] = {"temperature": temperature, "rows_per_forward": rows_per_forward}
    how |= {"every_rank_alike": sharded, "template_options": template_options, "answer_pattern": answer_pattern}
    readings, misses = SignalReader(model, tokenizer, strategy, **how).read(sampled, signals.seeds_B)
    readings = replace(readings, group=_group(sampled, prompt_ids, rewards))
    signals = replace(signals, trained=trained, readings=readings)
    return _weights(signals, token_advantages(strategy, signals, normalise=normalise), misses)


def _strategy(
    model: Any,
    credit: str | Credit,
    options: Mapping[str, Any] | None,
    prompt_ids: Ids,
    response_ids: Ids,
    advantages: Sequence[float] | Tensor,
    given: Mapping[str, Sequence[Any] | Tensor | None],
) -> Credit:
    """The strategy; raises where what is given does not fit, or is not all that it reads."""
    strategy = make_credit(credit, options) if isinstance(credit, str) else credit
    name = credit if isinstance(credit, str) else getattr(credit, "__name__", type(credit).__name__)
    _refuse_unlike(prompt_ids, response_ids, advantages=advantages, **given)
    _refuse_images(name, needs_of(strategy), image_token_of(model), prompt_ids)
    _refuse_missing(name, needs_of(strategy), **given)
    return strategy


def _batch(
    model: Any,
    tokenizer: Any,
    prompt_ids: Ids,
    response_ids: Ids,
    advantages: Sequence[float] | Tensor,
    counted: Sequence[Sequence[bool]] | None,
    prompts: Sequence[Prompt] | None,
    golds: Sequence[str | None] | None,
    seed: int,
) -> tuple[Sampled, Signals]:
    """The sequences side by side, and what is known of them before the model has read them."""
    device = device_of(model)
    pairs = list(zip(prompt_ids, response_ids, strict=True))
    sampled = Sampled.padded(pairs, device, pad=tokenizer.pad_token_id or 0, prompts=prompts, golds=golds)
    mask_BR = sampled.response_mask_BR.bool()
    if counted is not None:
        mask_BR &= _marked(counted, response_ids, device)
    seeds_B = response_seeds(sampled.response_ids_BR, mask_BR, seed)
    return sampled, Signals(mask_BR=mask_BR, advantages_B=_finite("advantages", advantages, device), seeds_B=seeds_B)


def _group(sampled: Sampled, prompt_ids: Ids, rewards: Sequence[float] | Tensor | None) -> GroupSignals | None:
    """Responses to equal prompts, where there are rewards."""
    if rewards is None:
        return None
    rewards_B = _finite("rewards", rewards, sampled.device)
    return group_of([tuple(ids) for ids in prompt_ids], sampled.response_ids_BR, rewards_B)


def _weights(signals: Signals, advantages_BR: Float[Tensor, "B R"], misses: Mapping[str, int]) -> CreditWeights:
    return CreditWeights(
        advantages_BR=advantages_BR.masked_fill(~signals.mask_BR, 0),
        weights_BR=token_factors(advantages_BR, signals.advantages_B).masked_fill(~signals.mask_BR, 0),
        mask_BR=signals.mask_BR,
        misses=dict(misses),
    )


def _refuse_unlike(prompt_ids: Ids, response_ids: Ids, **others: Sequence[Any] | Tensor | None) -> None:
    """Raise unless there is a prompt, and everything else that is given, for each response."""
    counts = {"prompt_ids": len(prompt_ids), "response_ids": len(response_ids)}
    counts |= {name: len(values) for name, values in others.items() if values is not None}
    if len(set(counts.values())) > 1 or not len(prompt_ids):
        got = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"expected as many of each, at least one, got {got}; give one of each for every response")
    empty = [row for row, ids in enumerate(prompt_ids) if not len(ids)]
    if empty:
        raise InputError(f"expected a token or more in every prompt, got none in row {empty[0]}; leave that row out")
    if not any(map(len, response_ids)):
        raise InputError("expected a token or more in some response, got none; there is nothing to weigh")


def _refuse_images(name: str, needs: frozenset[str], image_token: int | None, prompt_ids: Ids) -> None:
    """Raise where images would have to be shown, which token ids alone do not do."""
    shown = image_token is not None and any(image_token in ids for ids in prompt_ids)
    if shown or needs & OF_IMAGES:
        got = "prompts that show images" if shown else f"credit {name!r}, which compares images"
        raise InputError(f"expected prompts of text, got {got}: train with FlowGRPOTrainer, which holds the images")


def _refuse_missing(name: str, needs: frozenset[str], **given: Sequence[Any] | Tensor | None) -> None:
    """Raise where a strategy reads what only the caller can give."""
    wanted = {
        "rewards": "of each response" if "group" in needs else "",
        "golds": "the right answer to each prompt" if needs & {"gold", "gain"} else "",
        "prompts": "as text or chat messages, to write them anew" if "gain" in needs else "",
    }
    for argument, what in wanted.items():
        if what and given[argument] is None:
            raise InputError(f"expected {argument} ({what}), got none: credit {name!r} reads it; pass {argument}=[...]")


def _finite(name: str, values: Sequence[float] | Tensor, device: torch.device) -> Float[Tensor, " B"]:
    values_B = torch.as_tensor(values, device=device).detach().float()
    if values_B.ndim != 1 or not bool(values_B.isfinite().all()):
        raise InputError(f"expected {name} as one finite number a response, got {values_B.tolist()}")
    return values_B


def _marked(counted: Sequence[Sequence[bool]], response_ids: Ids, device: torch.device) -> Bool[Tensor, "B R"]:
    lengths, expected = [len(marks) for marks in counted], [len(ids) for ids in response_ids]
    if lengths != expected:
        raise InputError(f"expected counted as long as the responses, {expected} tokens, got {lengths}")
    rows = [torch.tensor(marks, dtype=torch.bool, device=device) for marks in counted]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
