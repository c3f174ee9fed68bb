"""Whether a trainer's loss takes advantages token by token, so that what a token earns moves that token and no other.

1. The loss is a function of the policy's log-probabilities. They are computed once, on a few tokens of one response,
   and handed to the loss as if the model had just run, so that its gradient by each of them can be taken for nothing.
2. All advantage on one token at a time: only that token's log-probability may have a gradient. A loss with one ratio a
   sequence spreads it over all, whatever the token, though its value is as it should be.
3. Several advantages at once: the gradient must be that of the single ones, each times its advantage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.model.forward import evaluating
from flowtracer.shapes import Float
from flowtracer.signals.images import FIELDS

WITH_ONE_RATIO = ("cispo", "vespo")
"""Losses of TRL that keep credit by token where the importance ratio is one of the whole sequence: there the ratio is
only a weight, without a gradient, of each token's log-probability."""

_TOKENS = 3


def refuse_sequence_ratio(level: str, loss_type: str) -> None:
    """Raise where gradients come through one importance ratio a sequence, so that only the sum of advantages counts.

    Raises:
        InputError: Says what else can be chosen.
    """
    if level == "sequence" and loss_type not in WITH_ONE_RATIO:
        raise InputError(
            f'expected importance_sampling_level="token", got "sequence" (GSPO) with loss_type={loss_type!r}: one '
            "ratio a sequence has one gradient, in which only the sum of its tokens' advantages counts; choose "
            f'"token", or a loss_type among {", ".join(WITH_ONE_RATIO)}'
        )


def refuse_blind_loss(trainer: Any, batch: dict[str, Any]) -> None:
    """Raise unless the loss is linear in advantages of shape (B, T), each of which moves its own token alone.

    Args:
        trainer: TRL's; its metrics and modes are left as they were.
        batch: What it has generated and scored, with its own advantages of shape (B,).

    Raises:
        InputError: Advantages of shape (B, T) are not taken, or not token by token.
    """
    small = _excerpt(batch)
    with _silently(trainer), evaluating(trainer.model):
        log_probs_1T, outputs = _heard(trainer, small)

        def gradient(advantages_1T: Float[Tensor, "1 T"]) -> Float[Tensor, " T"]:
            leaf_1T = log_probs_1T.clone().requires_grad_()
            with _answering(trainer, leaf_1T, outputs), torch.enable_grad():
                loss = trainer._compute_loss(trainer.model, {**small, "advantages": advantages_1T})
            found = torch.autograd.grad(loss, leaf_1T, allow_unused=True)[0] if loss.requires_grad else None
            return torch.zeros_like(leaf_1T)[0] if found is None else found[0]

        advantages_T = torch.linspace(0.5, 1.5, log_probs_1T.shape[1]).to(log_probs_1T)
        try:
            # What does not depend on advantages, such as the KL term, stands in all of them.
            rest_T = gradient(torch.zeros_like(log_probs_1T))
            single_TT = torch.stack([gradient(row_T[None]) for row_T in torch.eye(len(advantages_T)).to(advantages_T)])
            together_T = gradient(advantages_T[None])
        except (RuntimeError, ValueError, IndexError) as error:  # the model has run already: what fails is arithmetic
            raise InputError(f"expected a TRL whose loss takes advantages of shape (B, T), got {error!r}") from error
    single_TT = single_TT - rest_T
    size = float(single_TT.abs().max())
    spread = float((single_TT - single_TT.diag().diag()).abs().max())
    unlike = float((advantages_T @ single_TT - (together_T - rest_T)).abs().max())
    if not (size > 0 and spread < 1e-3 * size and unlike < 1e-3 * size):
        raise InputError(
            "expected a TRL whose loss is linear in advantages of shape (B, T), each moving its own token alone, got "
            f"gradients of up to {size:.2g}, of which {spread:.2g} by other tokens' advantages, and {unlike:.2g} off "
            "their sum: per-token credit would be lost; use the loss of a supported release of TRL (>=1.9, not 1.15)"
        )


def _excerpt(batch: dict[str, Any]) -> dict[str, Any]:
    """A few tokens of the first response behind a few of its prompt, as if just sampled by the policy that learns."""
    prompt, response = (batch[name].shape[1] for name in ("prompt_ids", "completion_ids"))
    device = batch["completion_ids"].device
    before = torch.arange(max(prompt - _TOKENS, 0), prompt, device=device)  # its end: padding stands in front
    behind = torch.arange(_TOKENS, device=device) % response

    def columns(name: str, width: int) -> Tensor:
        if name.startswith("prompt_"):
            return before
        if width == prompt + response:
            return torch.cat([before, prompt + behind])
        return behind if width == response else torch.arange(width, device=device)

    # Without images: how the loss takes advantages has nothing to do with what the model is shown.
    text = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name not in FIELDS}
    small = {name: value[:1] if value.ndim else value for name, value in text.items()}
    small |= {name: value[:, columns(name, value.shape[1])] for name, value in small.items() if value.ndim == 2}
    # Ratios of 1: away from it a loss may clip, which says nothing of how it takes advantages.
    small.pop("old_per_token_logps", None)
    for name in ("completion_mask", "tool_mask", "importance_sampling_ratio"):
        if name in small:
            small[name] = torch.ones_like(small[name])
    return small


def _heard(trainer: Any, small: dict[str, Any]) -> tuple[Float[Tensor, "1 T"], tuple[Any, ...]]:
    """The policy's log-probabilities, and what else is computed with them, as the loss asks for them."""
    heard: list[tuple[Any, ...]] = []
    compute = trainer._get_per_token_logps_and_entropies

    def listen(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        heard.append(compute(*args, **kwargs))
        return heard[-1]

    with _replaced(trainer, listen), torch.no_grad():
        trainer._compute_loss(trainer.model, small)
    if not heard:
        raise InputError(
            "expected a TRL whose loss computes log-probabilities by _get_per_token_logps_and_entropies, got one that "
            "does not; use a supported release of TRL (>=1.9, not 1.15)"
        )
    log_probs_1T, *rest = heard[-1]
    return log_probs_1T.detach().float(), tuple(rest)


@contextmanager
def _answering(trainer: Any, log_probs_1T: Tensor, outputs: tuple[Any, ...]) -> Iterator[None]:
    with _replaced(trainer, lambda *_, **__: (log_probs_1T, *outputs)):
        yield


@contextmanager
def _replaced(trainer: Any, compute: Any) -> Iterator[None]:
    """Other log-probabilities for the loss, for a moment."""
    trainer._get_per_token_logps_and_entropies = compute
    try:
        yield
    finally:
        del trainer._get_per_token_logps_and_entropies


@contextmanager
def _silently(trainer: Any) -> Iterator[None]:
    """The metrics that losses leave behind are taken away again."""
    metrics = {mode: {name: list(values) for name, values in kept.items()} for mode, kept in trainer._metrics.items()}
    try:
        yield
    finally:
        for mode, kept in metrics.items():
            trainer._metrics[mode].clear()
            trainer._metrics[mode].update(kept)
