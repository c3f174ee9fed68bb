"""Whether a policy loss of verl takes advantages token by token, so that what a token earns moves that token alone.

The loss is a function of log-probabilities, so a few numbers show it: all advantage on one token at a time, then
several at once, near the policy that sampled and so within every clip.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn

from flowtracer.errors import InputError
from flowtracer.shapes import Float

_NEAR = 1e-4
"""How far log-probabilities are from those of the policy that sampled: within the narrowest clip in use, GSPO's 3e-4,
and not 0, where a penalty on the distance would have no gradient."""


def refuse_blind_policy_loss(actor: Any) -> None:
    """Raise unless the policy loss is linear in the advantages of tokens, each of which moves its own token alone.

    Args:
        actor: verl's `ActorConfig`.

    Raises:
        InputError: Names the loss, and what to choose instead.
    """
    name = actor.policy_loss.get("loss_mode", "vanilla")
    advantages_T = torch.tensor([0.5, 1.0, 1.5])
    try:
        # What does not depend on advantages, such as a penalty, stands in all of them.
        rest_T = _gradient(name, actor, torch.zeros_like(advantages_T))
        single_TT = torch.stack([_gradient(name, actor, row_T) for row_T in torch.eye(len(advantages_T))]) - rest_T
        together_T = _gradient(name, actor, advantages_T) - rest_T
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise InputError(
            f"expected a policy loss of advantages and log-probabilities, got {name!r}, which fails with {error!r}; "
            'choose actor_rollout_ref.actor.policy_loss.loss_mode="vanilla"'
        ) from error
    size = float(single_TT.abs().max())
    spread = float((single_TT - single_TT.diag().diag()).abs().max())
    unlike = float((advantages_T @ single_TT - together_T).abs().max())
    if not (size > 0 and spread < 1e-3 * size and unlike < 1e-3 * size):
        raise InputError(
            "expected a policy loss that is linear in the advantages of tokens, each moving its own token alone, got "
            f"{name!r}, with gradients of up to {size:.2g}, of which {spread:.2g} by other tokens' advantages, and "
            f"{unlike:.2g} off their sum: credit by token would be lost; choose another "
            'actor_rollout_ref.actor.policy_loss.loss_mode, such as "vanilla"'
        )


def _gradient(name: str, actor: Any, advantages_T: Float[Tensor, " T"]) -> Float[Tensor, " T"]:
    """Of the loss, by each token's log-probability."""
    actor = copy.deepcopy(actor)
    count = len(advantages_T)
    actor.global_batch_info.update(
        dp_size=1, batch_num_tokens=count, global_batch_size=1, loss_scale_factor=actor.loss_scale_factor
    )
    old_1T = torch.tensor([[0.5, 0.3, 0.4]]).log()
    log_prob_1T = (old_1T + _NEAR * torch.tensor([[1.0, -1.0, 1.0]])).requires_grad_()
    loss, _ = get_policy_loss_fn(name)(
        old_log_prob=old_1T,
        log_prob=log_prob_1T,
        advantages=advantages_T[None],
        response_mask=torch.ones_like(old_1T),
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
        rollout_is_weights=None,
    )
    found = torch.autograd.grad(loss, log_prob_1T, allow_unused=True)[0] if loss.requires_grad else None
    return torch.zeros(count) if found is None else found[0]
