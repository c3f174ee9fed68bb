"""What a trainer logs of the credit that a batch was given: pure functions of tensors."""

from __future__ import annotations

from torch import Tensor

from flowtracer.credit import Signals
from flowtracer.rl.advantages import boosted
from flowtracer.shapes import Float


def credit_metrics(advantages_BR: Float[Tensor, "B R"], signals: Signals) -> dict[str, Tensor | float]:
    """Shares of tokens, of flow and of responses by the name under which they are logged, one number each.

    `credit/boosted_share` and `credit/mean_factor` are over the counted tokens of responses that have an advantage.
    `credit/traced`, `credit/flow_in_boosted` and `credit/answered` are there where flow or answers were read.
    """
    mask_BR, own_B = signals.mask_BR, signals.advantages_B
    # Where a response has no advantage, no token's can be larger.
    learned_BR = mask_BR & (own_B != 0)[:, None]
    boosted_BR = boosted(advantages_BR, own_B, learned_BR)
    size = (own_B.abs()[:, None] * learned_BR).sum()
    metrics: dict[str, Tensor | float] = {
        "credit/boosted_share": boosted_BR.sum() / learned_BR.sum().clamp_min(1),
        "credit/mean_factor": (advantages_BR.abs() * learned_BR).sum() / size if size > 0 else 1.0,
    }
    if (flow := signals.readings.flow) is not None:
        all_flow = (flow.throughput_BR * learned_BR).sum()
        metrics["credit/traced"] = flow.traced_B.float().mean()
        metrics["credit/flow_in_boosted"] = (flow.throughput_BR * boosted_BR).sum() / all_flow.clamp_min(1e-12)
    if (answer := signals.readings.answer) is not None:
        metrics["credit/answered"] = answer.answer_BR.any(-1).float().mean()
    return metrics
