"""What a strategy reads, out of the fields that verl keeps of a batch in its transfer queue.

All responses of all workers are in one batch, so groups and sums over the batch are whole. Fields are nested tensors,
as long as each response; here they are padded on the right.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.workers.utils.padding import response_from_nested

from flowtracer.credit import Readings, Reads, Signals
from flowtracer.credit.signals import LogitSignals
from flowtracer.errors import InputError
from flowtracer.rl.advantages import group_of, response_seeds
from flowtracer.rl.verl.scores import CARRIED, FIELD, unpack
from flowtracer.shapes import Bool, Float


def asked_of_workers(reads: Reads) -> Reads | None:
    """What the workers have to read of a pass; None for nothing."""
    needs = reads.needs & CARRIED.keys()
    return replace(reads, needs=needs) if needs else None


def fields_of(reads: Reads) -> list[str]:
    """Names of the fields that `signals_of` takes."""
    fields = ["advantages", "response_mask", "responses"]
    fields += ["uid", "rm_scores"] if "group" in reads.needs else []
    fields += ["entropy", "old_log_probs"] if "logits" in reads.needs else []
    return fields if asked_of_workers(reads) is None else [*fields, FIELD]


def signals_of(data: TensorDict, reads: Reads, *, seed: int, trained: float) -> Signals:
    """Signals of a whole batch.

    Args:
        data: The fields of that name.
        reads: What the strategy reads.
        seed: Of this step, for strategies that draw.
        trained: Share of the training that is done.

    Raises:
        InputError: A field that is missing, or advantages that differ from token to token.
    """
    missing = [name for name in fields_of(reads) if name not in data.keys()]  # noqa: SIM118 - not a mapping
    if missing:
        raise InputError(
            f"expected {', '.join(missing)} of each response in the transfer queue, got none: the pass that computes "
            "old log-probabilities did not run, or not in FlowTracer's engine"
        )
    mask_BR, ids_BR = _padded(data, "response_mask").bool(), _padded(data, "responses")
    readings = Readings()
    asked = asked_of_workers(reads)
    if asked is not None:
        readings = unpack(response_from_nested(data[FIELD], data["responses"]).to_padded_tensor(0.0), asked.needs)
    if "logits" in reads.needs:
        entropy_BR, log_prob_BR = (_padded(data, name).float() for name in ("entropy", "old_log_probs"))
        readings = replace(readings, logits=LogitSignals(entropy_BR=entropy_BR, log_prob_BR=log_prob_BR))
    if "group" in reads.needs:
        rewards_B = _padded(data, "rm_scores").sum(-1)
        readings = replace(readings, group=group_of(data.get("uid").tolist(), ids_BR, rewards_B))
    return Signals(
        mask_BR=mask_BR,
        advantages_B=one_each(_padded(data, "advantages"), mask_BR),
        seeds_B=response_seeds(ids_BR, mask_BR, seed),
        trained=trained,
        readings=readings,
    )


def one_each(advantages_BR: Float[Tensor, "B R"], mask_BR: Bool[Tensor, "B R"]) -> Float[Tensor, " B"]:
    """The advantage of each response, which is that of all its counted tokens; 0 where none is counted.

    Raises:
        InputError: Advantages that differ from token to token.
    """
    first_B1 = mask_BR.long().argmax(-1, keepdim=True)
    own_B1 = advantages_BR.gather(-1, first_B1) * mask_BR.any(-1, keepdim=True)
    apart = float(torch.where(mask_BR, (advantages_BR - own_B1).abs(), 0.0).max())
    if apart > 1e-6 * float(own_B1.abs().max()):
        raise InputError(
            f"expected one advantage a response, got advantages up to {apart:.2g} apart within one: choose an "
            "algorithm.adv_estimator that gives each response one, such as grpo or rloo"
        )
    return own_B1[:, 0]


def _padded(data: TensorDict, name: str) -> Tensor:
    values: Tensor = data[name]
    return values.to_padded_tensor(0)
