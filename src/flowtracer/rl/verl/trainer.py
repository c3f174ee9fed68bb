"""verl's synchronous trainer, whose reward lands on the tokens that carried the answer.

1. The batch of the pass that computes old log-probabilities says what the strategy reads; the workers return it with
   them (`flowtracer.rl.verl.engine`).
2. verl computes one advantage a response. The strategy, which here sees all responses of all workers, gives each token
   its own, and these take the place of the advantages in the transfer queue.
3. Everything else is verl's. Credit "uniform" is its own run, to the bit.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_to_nested

from flowtracer.credit import Credit, make_credit, reads_of
from flowtracer.rl.advantages import token_advantages
from flowtracer.rl.metrics import credit_metrics
from flowtracer.rl.verl.engine import READS
from flowtracer.rl.verl.losses import refuse_blind_policy_loss
from flowtracer.rl.verl.options import credit_options
from flowtracer.rl.verl.queued import asked_of_workers, fields_of, signals_of
from flowtracer.rl.verl.refusals import refuse_config, refuse_credit, refuse_other_engines

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(os.getenv("VERL_LOGGING_LEVEL", "INFO"))


class FlowTrainer(PPOTrainerSync):
    """Chosen by `trainer.v1.trainer_mode=flow`; its options stand in `trainer.v1.flow`.

    Raises:
        InputError: Options that cannot be combined with credit by token, or workers without FlowTracer's engine.
    """

    def __init__(self, config: DictConfig) -> None:
        self._options = credit_options(config)
        self.credit = self.make_credit()
        reads = reads_of(self.credit)
        refuse_credit(self._options.credit, reads)
        refuse_config(config, reads)
        refuse_blind_policy_loss(omega_conf_to_dataclass(config.actor_rollout_ref.actor))
        self._reads = reads
        self._asked = asked_of_workers(reads)
        with open_dict(config):  # verl asks in many places whether it is its own synchronous trainer
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        _LOGGER.info("credit %r reads %s", self._options.credit, ", ".join(sorted(reads.needs)) or "nothing")

    def make_credit(self) -> Credit:
        """The strategy that the configuration names; a trainer with one of its own overrides this."""
        return make_credit(self._options.credit, self._options.credit_options)

    def _setup(self) -> None:
        super()._setup()
        if self._asked is not None:
            refuse_other_engines(self.actor_rollout_wg.workers)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        if self._asked is not None:
            batch.extra_info[READS] = self._asked
        batch = super()._compute_old_log_prob(batch, metrics)
        batch.extra_info.pop(READS, None)  # later passes read nothing
        return batch

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        started = time.perf_counter()
        names = fields_of(self._reads)
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=names)
        step = self.global_steps - 1
        signals = signals_of(
            data, self._reads, seed=self._options.seed + step, trained=step / max(self.total_training_steps, 1)
        )
        advantages_BR = token_advantages(self.credit, signals, normalise=self._options.credit_normalise)
        # What the loss does not count stays as it was.
        stock_BR = data["advantages"].to_padded_tensor(0.0)
        advantages_BR = torch.where(signals.mask_BR, advantages_BR.to(stock_BR.dtype), stock_BR)
        placed = {"advantages": response_to_nested(advantages_BR, data["advantages"])}
        batch = tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(placed, batch_size=len(batch))
        )
        metrics |= {name: float(value) for name, value in credit_metrics(advantages_BR, signals).items()}
        metrics["credit/seconds"] = time.perf_counter() - started
        return batch
