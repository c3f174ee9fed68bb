"""What credit cannot go with in verl, said before a worker starts; and that its engine is the one that runs."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowtracer.credit.signals import Reads
from flowtracer.errors import InputError
from flowtracer.rl.verl.scores import CARRIED

OF_VERL = frozenset({"group", "logits"})
"""Needs that verl computes by itself."""
STRATEGIES = ("fsdp", "fsdp2")
BY_TOKEN = ("gae", "reinforce_plus_plus", "optimal_token_baseline", "tir_optimal_token_baseline")
"""Estimators whose advantages differ from token to token by themselves."""


def refuse_credit(name: str, reads: Reads) -> None:
    """Raise where a strategy reads what a pass over log-probabilities does not show.

    Raises:
        InputError: Names what it reads.
    """
    beyond = sorted(reads.needs - OF_VERL - CARRIED.keys())
    if beyond:
        raise InputError(
            f"expected a credit that reads attention, log-probabilities, answers or groups, got {name!r}, which reads "
            f"{', '.join(beyond)}: it takes passes of its own, which verl's workers do not run; train with "
            "FlowGRPOTrainer, or choose another credit"
        )
    if "flow" in reads.needs and (reads.capacity, reads.graph) != ("attention", "tokens"):
        raise InputError(
            f"expected flow over attention and tokens, got capacity {reads.capacity!r} and graph {reads.graph!r}: they "
            "take forwards of their own through a model that every process holds whole; leave both options out"
        )


def refuse_config(config: DictConfig, reads: Reads) -> None:
    """Raise where verl's configuration has no place for credit by token.

    Raises:
        InputError: Names the key, and what it may be.
    """
    actor = config.actor_rollout_ref.actor
    if actor.strategy not in STRATEGIES:
        raise InputError(
            f"expected actor_rollout_ref.actor.strategy among {', '.join(STRATEGIES)}, got {actor.strategy!r}: its "
            "attention is not read through transformers"
        )
    for key in ("ulysses_sequence_parallel_size", "fsdp_config.ulysses_sequence_parallel_size"):
        size = OmegaConf.select(actor, key)
        if size is not None and size > 1:
            raise InputError(
                f"expected actor_rollout_ref.actor.{key}=1, got {size}: with sequence parallelism no process has whole "
                "rows of attention; lower ppo_max_token_len_per_gpu instead"
            )
    estimator = config.algorithm.adv_estimator
    if estimator in BY_TOKEN:
        raise InputError(
            f"expected an algorithm.adv_estimator with one advantage a response, such as grpo or rloo, got "
            f"{estimator!r}, which places credit by itself"
        )
    if reads.needs - {"group"} and OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        raise InputError(
            "expected algorithm.rollout_correction.bypass_mode=False, got True: it leaves out the pass that computes "
            "old log-probabilities, off which credit is read"
        )
    if OmegaConf.select(config, "distillation.enabled"):
        raise InputError("expected distillation.enabled=False, got True: its loss is none of advantages")


def refuse_other_engines(workers: list[Any]) -> None:
    """Raise unless every worker runs FlowTracer's engine.

    Args:
        workers: Handles of the Ray actors that hold the policy.

    Raises:
        InputError: Says how to make the plug-in load.
    """
    import ray

    try:
        engines = ray.get([worker.__ray_call__.remote(engines_of) for worker in workers])
    except ray.exceptions.RayError as error:
        raise InputError(_not_ours(f"workers that cannot import it ({error})")) from error
    others = sorted({name for names in engines for name, ours in names.items() if not ours})
    if others:
        raise InputError(_not_ours(", ".join(others)))


def engines_of(worker: Any) -> dict[str, bool]:
    """Names of the engines that hold a policy in this process, and whether they are FlowTracer's."""
    from flowtracer.rl.verl.engine import FlowEngine

    held = getattr(worker, "worker_dict", {"": worker}).values()
    engines = [inner.actor.engine for inner in held if getattr(inner, "actor", None) is not None]
    return {f"{type(e).__module__}.{type(e).__qualname__}": isinstance(e, FlowEngine) for e in engines}


def _not_ours(got: str) -> str:
    return (
        f"expected flowtracer.rl.verl.engine.FlowEngine in every worker, got {got}: install flowtracer[verl] on each "
        "node, leave VERL_USE_EXTERNAL_PLUGINS at auto or name flowtracer in it, and run python -m flowtracer.rl.verl "
        "there, which shows why the plug-in does not load"
    )
