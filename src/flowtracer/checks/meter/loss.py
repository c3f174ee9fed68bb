"""How TRL's losses weigh a response token beside its advantage, one policy update after sampling: all ratios are 1.

    grpo, sapo           1 / (B n_i)       the mean over responses of the mean over their tokens
    bnpo, dapo, cispo    1 / sum_i n_i     the mean over the batch's tokens: long responses weigh more
    dr_grpo              1 / (B N)         N the longest response allowed
    luspo                1 / B             the sum over a response's tokens

`n_i` are the counted tokens of response `i`, `B` the responses of the batch.
"""

from __future__ import annotations

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
    lengths_B1 = mask_BR.sum(-1, keepdim=True).double().clamp_min(1)
    batch = len(mask_BR)
    if loss_type in ("grpo", "sapo"):
        weights_B1 = 1 / (batch * lengths_B1)
    elif loss_type in ("bnpo", "dapo", "cispo"):
        weights_B1 = (1 / mask_BR.sum().double().clamp_min(1)).expand_as(lengths_B1)
    else:
        weights_B1 = (1 / lengths_B1.new_full((), batch * (max_tokens if loss_type == "dr_grpo" else 1))).expand_as(
            lengths_B1
        )
    return weights_B1.float()
