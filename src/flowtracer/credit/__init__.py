"""Credit strategies: how much of a response's advantage each of its tokens gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from flowtracer.credit.base import Credit, Signals
from flowtracer.credit.flow import FlowCredit
from flowtracer.credit.random import RandomCredit
from flowtracer.credit.uniform import UniformCredit
from flowtracer.errors import InputError

__all__ = ["CREDITS", "Credit", "Signals", "credit_weights", "make_credit"]

CREDITS: dict[str, Callable[..., Credit]] = {
    "flow": FlowCredit,
    "random": RandomCredit,
    "uniform": UniformCredit,
}


def make_credit(name: str, options: Mapping[str, Any] | None = None) -> Credit:
    """The strategy of that name, with its options.

    Raises:
        InputError: An unknown name or option.
    """
    if name not in CREDITS:
        raise InputError(f"expected a credit among {sorted(CREDITS)}, got {name!r}")
    try:
        return CREDITS[name](**(options or {}))
    except TypeError as error:
        raise InputError(f"expected options of credit {name!r}, got {dict(options or {})}: {error}") from error


def credit_weights(
    credit: str | Credit,
    mask_BR: Tensor,
    *,
    throughput_BR: Tensor | None = None,
    traced_B: Tensor | None = None,
    seeds_B: tuple[int, ...] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Per-token factors (B, R) of a batch of responses.

    Args:
        credit: A name in `CREDITS`, or any strategy of your own.
        mask_BR: Boolean, tokens that the loss counts.
        throughput_BR: tau of each token, where the credit needs flow; `trace.throughput` of the response's tokens.
        traced_B: Boolean, responses that have a trace; None for all.
        seeds_B: A seed of each response for random draws; None for its row.
        options: Options of a strategy given by name.
    """
    strategy = make_credit(credit, options) if isinstance(credit, str) else credit
    if throughput_BR is not None and traced_B is None:
        traced_B = mask_BR.new_ones(len(mask_BR))
    return strategy(
        Signals(
            mask_BR=mask_BR,
            seeds_B=tuple(range(len(mask_BR))) if seeds_B is None else seeds_B,
            throughput_BR=throughput_BR,
            traced_B=traced_B,
        )
    )
