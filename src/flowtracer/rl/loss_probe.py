"""Whether a trainer's loss still takes advantages token by token.

A loss is given one response of a few tokens, each token's advantage alone and then all together: the sum of what the
single ones change must be what they change together, and something must change.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import InputError


def refuse_nonlinear_loss(trainer: Any, batch: dict[str, Any]) -> None:
    """Raise unless the loss is linear in advantages of shape (B, T), each token's own.

    Evaluates the trainer's loss on the first few tokens of one response: the sum of the losses with one token's
    advantage at a time must be the loss with all of them.
    """
    small = {name: _first_row(value, 3) for name, value in batch.items() if isinstance(value, Tensor) and value.ndim}
    small |= {name: value for name, value in batch.items() if isinstance(value, Tensor) and not value.ndim}
    small["completion_mask"] = torch.ones_like(small["completion_ids"])
    tokens = small["completion_ids"].shape[1]
    advantages_1T = torch.linspace(0.5, 1.5, tokens, device=small["completion_ids"].device)[None]
    rows = [torch.zeros_like(advantages_1T), *torch.eye(tokens).to(advantages_1T)[:, None] * advantages_1T]
    metrics = {mode: {name: list(values) for name, values in kept.items()} for mode, kept in trainer._metrics.items()}
    trainer.model.eval()
    try:
        with torch.no_grad():
            zero, *single = (trainer._compute_loss(trainer.model, {**small, "advantages": row}) for row in rows)
            together = trainer._compute_loss(trainer.model, {**small, "advantages": advantages_1T})
    except Exception as error:
        raise InputError(f"expected a TRL whose loss takes advantages of shape (B, T), got {error!r}") from error
    finally:
        trainer.model.train()
        for mode, kept in metrics.items():
            trainer._metrics[mode].clear()
            trainer._metrics[mode].update(kept)
    parts = torch.stack([loss - zero for loss in single])
    if not torch.allclose(parts.sum(), together - zero, rtol=1e-3, atol=1e-6) or bool((parts == 0).all()):
        raise InputError(
            "expected a TRL whose loss is linear in advantages of shape (B, T), got one that is not: per-token credit "
            "would be lost; use a supported release of TRL (>=1.9, not 1.15)"
        )


def _first_row(value: Tensor, tokens: int) -> Tensor:
    return value[:1] if value.ndim == 1 else value[:1, :tokens]
