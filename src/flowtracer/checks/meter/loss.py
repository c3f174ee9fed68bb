"""How TRL's losses weigh a response token beside its advantage, one policy update after sampling: all ratios are 1.

    grpo, sapo           1 / (B n_i)       the mean over responses of the mean over their tokens
    bnpo, dapo, cispo    1 / sum_i n_i     the mean over the batch's tokens: long responses weigh more
    dr_grpo              1 / (B N)         N the longest response allowed
    luspo                1 / B             the sum over a response's tokens

`n_i` are the counted tokens of response `i`, `B` the responses of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float

LOSS_TYPES = ("grpo", "sapo", "bnpo", "dapo", "cispo", "dr_grpo", "luspo")


def token_weights(loss_type: str, mask_BR: Bool[Tensor, "B R"], *, max_tokens: int) -> Float[Tensor, "B 1"]:
    """What each token's advantage is multiplied by.

    Raises:
        InputError: A loss that is not linear in the advantages, or that does not exist.
    """
    if loss_type not in LOSS_TYPES:
        raise InputError(f"expected loss_type among {', '.join(LOSS_TYPES)}, got {loss_type!r}")
    lengths_B1 = mask_BR.sum(-1, keepdim=True).float().clamp_min(1)
    if loss_type in ("grpo", "sapo"):
        return 1 / (len(mask_BR) * lengths_B1)
    if loss_type in ("bnpo", "dapo", "cispo"):
        return torch.ones_like(lengths_B1) / lengths_B1.sum()
    return torch.ones_like(lengths_B1) / (len(mask_BR) * (max_tokens if loss_type == "dr_grpo" else 1))
