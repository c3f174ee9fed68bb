"""Options of credit in verl's configuration, `trainer.v1.flow`, under the names that they have for TRL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf

from flowtracer.errors import InputError

MODE = "flow"
"""The `trainer.v1.trainer_mode` that turns credit on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditOptions:
    """What a run says about credit."""

    credit: str = "flow"
    """Name of a strategy in `flowtracer.CREDITS`."""
    credit_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the strategy, such as `{"ratio": 0.4, "layers": [15, 16]}`."""
    credit_normalise: bool = False
    """Keep the mean size of each response's advantages: a mean factor of 1."""
    seed: int = 0
    """Of strategies that draw."""


def credit_options(config: Any) -> CreditOptions:
    """The options in verl's configuration, with what they are where it says nothing.

    Raises:
        InputError: An option that does not exist.
    """
    section = OmegaConf.select(config, f"trainer.v1.{MODE}")
    given: dict[str, Any] = {} if section is None else dict(OmegaConf.to_container(section, resolve=True))
    known = {each.name for each in fields(CreditOptions)}
    if unknown := sorted(set(given) - known):
        raise InputError(f"expected trainer.v1.{MODE} to hold {', '.join(sorted(known))}, got {', '.join(unknown)}")
    return CreditOptions(**given)
