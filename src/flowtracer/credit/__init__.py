"""Credit strategies: how much of a response's advantage each of its tokens gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from flowtracer.credit.attention import AttentionCredit
from flowtracer.credit.attention_entropy import AttentionEntropyCredit
from flowtracer.credit.base import BoostCredit, Credit
from flowtracer.credit.confidence import ConfidenceCredit
from flowtracer.credit.correlation import CorrelationCredit
from flowtracer.credit.coupled import CoupledCredit
from flowtracer.credit.delta import DeltaCredit
from flowtracer.credit.entropy import EntropyCredit
from flowtracer.credit.entropy_8020 import Entropy8020Credit
from flowtracer.credit.flow import FlowCredit
from flowtracer.credit.flow_contrast import FlowContrastCredit
from flowtracer.credit.free_flow import FreeFlowCredit
from flowtracer.credit.global_anchor import GlobalCredit
from flowtracer.credit.gradient import GradientCredit
from flowtracer.credit.grail import GrailCredit
from flowtracer.credit.likelihood_gain import LikelihoodGainCredit
from flowtracer.credit.local import LocalCredit
from flowtracer.credit.nthr import NthrCredit
from flowtracer.credit.oar import OarCredit
from flowtracer.credit.position import PositionCredit
from flowtracer.credit.progress import ProgressCredit
from flowtracer.credit.random import RandomCredit
from flowtracer.credit.shuffled import ShuffledCredit
from flowtracer.credit.signals import NEEDS, OF_IMAGES, FlowSignals, Readings, Reads, Signals, needs_of, reads_of
from flowtracer.credit.thr import ThrCredit
from flowtracer.credit.uniform import UniformCredit
from flowtracer.credit.visual import VisualCredit
from flowtracer.credit.visual_mask import VisualMaskCredit
from flowtracer.credit.visual_robust import VisualRobustCredit
from flowtracer.errors import InputError
from flowtracer.options import make

__all__ = [
    "CREDITS",
    "NEEDS",
    "BoostCredit",
    "Credit",
    "Readings",
    "Reads",
    "Signals",
    "credit_factors",
    "make_credit",
    "needs_of",
    "of_text",
    "reads_of",
    "token_factors",
]

CREDITS: dict[str, Callable[..., Credit]] = {
    "attention": AttentionCredit,
    "attention_entropy": AttentionEntropyCredit,
    "confidence": ConfidenceCredit,
    "correlation": CorrelationCredit,
    "coupled": CoupledCredit,
    "delta": DeltaCredit,
    "entropy": EntropyCredit,
    "entropy_8020": Entropy8020Credit,
    "flow": FlowCredit,
    "flow_contrast": FlowContrastCredit,
    "free_flow": FreeFlowCredit,
    "global": GlobalCredit,
    "gradient": GradientCredit,
    "grail": GrailCredit,
    "likelihood_gain": LikelihoodGainCredit,
    "local": LocalCredit,
    "nthr": NthrCredit,
    "oar": OarCredit,
    "position": PositionCredit,
    "progress": ProgressCredit,
    "random": RandomCredit,
    "shuffled": ShuffledCredit,
    "thr": ThrCredit,
    "uniform": UniformCredit,
    "visual": VisualCredit,
    "visual_mask": VisualMaskCredit,
    "visual_robust": VisualRobustCredit,
}


def make_credit(name: str, options: Mapping[str, Any] | None = None) -> Credit:
    """The strategy of that name, with its options.

    Raises:
        InputError: An unknown name or option, or one of another type.
    """
    if name not in CREDITS:
        raise InputError(f"expected a credit among {sorted(CREDITS)}, got {name!r}")
    return make(f"credit {name!r}", CREDITS[name], options or {})


def of_text() -> list[str]:
    """Names of the strategies that a model of text alone can run."""
    return [name for name in CREDITS if not needs_of(make_credit(name)) & OF_IMAGES]


def token_factors(advantages_BR: Tensor, advantages_B: Tensor) -> Tensor:
    """What each token's advantage was multiplied by; 1 where the response has no advantage."""
    some_B1 = (advantages_B != 0)[:, None]
    return torch.where(some_B1, advantages_BR / torch.where(some_B1, advantages_B[:, None], 1.0), 1.0)


def credit_factors(
    credit: str | Credit,
    mask_BR: Tensor,
    *,
    throughput_BR: Tensor | None = None,
    traced_B: Tensor | None = None,
    seeds_B: tuple[int, ...] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Per-token factors (B, R) of a batch of responses, each with the advantage 1.

    For other signals, and for advantages of your own, call the strategy itself: `make_credit(name)(Signals(...))`.

    Args:
        credit: A name in `CREDITS`, or any strategy of your own.
        mask_BR: Boolean, tokens that the loss counts.
        throughput_BR: tau of each token, where the credit needs flow; `trace.throughput` of the response's tokens.
        traced_B: Boolean, responses that have a trace; None for all.
        seeds_B: A seed of each response for random draws; None for its row.
        options: Options of a strategy given by name.
    """
    strategy = make_credit(credit, options) if isinstance(credit, str) else credit
    flow = None
    if throughput_BR is not None:
        traced_B = mask_BR.new_ones(len(mask_BR)) if traced_B is None else traced_B
        flow = FlowSignals(throughput_BR=throughput_BR, traced_B=traced_B)
    advantages_B = torch.ones(len(mask_BR), device=mask_BR.device)
    signals = Signals(
        mask_BR=mask_BR,
        advantages_B=advantages_B,
        seeds_B=tuple(range(len(mask_BR))) if seeds_B is None else seeds_B,
        readings=Readings(flow=flow),
    )
    return token_factors(strategy(signals), advantages_B)
