"""verl's FSDP engine, which reads attention off the pass that computes old log-probabilities.

1. The trainer names what its strategy reads in the batch of that pass; in every other pass this is verl's own engine.
2. Of each micro batch the queries and keys are scored as the forward runs, packed or padded, in the process that has
   them. No forward is added, but for one over a few tokens at the first pass, in which capture proves itself.
3. The scores go back as one more nested tensor beside the log-probabilities, and with them through the queue.
"""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from flowtracer.credit.signals import Reads
from flowtracer.credit.together import Together
from flowtracer.errors import InputError
from flowtracer.rl.verl.scores import FIELD, pack
from flowtracer.signals.packed import places_of
from flowtracer.signals.reader import SignalReader
from flowtracer.signals.sampled import Sampled

READS = "flowtracer_reads"
"""Under this name a batch says what is to be read, a `Reads`."""


class FlowEngine(FSDPEngineWithLMHead):
    """Returns signals of the policy's attention with its log-probabilities, where a batch asks for them."""

    _signal_reader: tuple[Reads, SignalReader] | None = None

    def forward_step(self, micro_batch: TensorDict, loss_function: Any, forward_only: bool) -> Any:
        """The step as verl has it; with signals, under the name `FIELD`, where the batch says what to read.

        Raises:
            InputError: A batch with images.
            CaptureError: The model's attention cannot be read.
        """
        reads: Reads | None = tu.get_non_tensor_data(micro_batch, READS, None)
        if reads is None:
            return super().forward_step(micro_batch, loss_function, forward_only)
        reader = self._reader(reads)
        sampled = sampled_of(micro_batch)
        lengths = micro_batch["input_ids"].offsets().diff().tolist()
        packed = bool(tu.get_non_tensor_data(micro_batch, "use_remove_padding", True))
        with reader.riding(sampled, places_of(lengths, packed=packed)) as ridden:
            loss, output = super().forward_step(micro_batch, loss_function, forward_only)
        readings, _ = reader.read(sampled, (0,) * len(sampled), ridden)
        output["model_output"][FIELD] = pack(readings, sampled, reads.needs)
        return loss, output

    def _reader(self, reads: Reads) -> SignalReader:
        """Made when it is first asked for: it runs a few tokens."""
        if self._signal_reader is None or self._signal_reader[0] != reads:
            only_reads = Together(credits={}, reads=reads)
            self._signal_reader = reads, SignalReader(self.module, self.model_config.tokenizer, only_reads)
        return self._signal_reader[1]


def sampled_of(micro_batch: TensorDict) -> Sampled:
    """Prompts and responses of a micro batch, on the device that the model runs on.

    Raises:
        InputError: A batch with images.
    """
    if micro_batch["position_ids"].dim() > 2:
        raise InputError("expected prompts of text, got a batch of images: they cannot be read in verl; use TRL")
    pairs = zip(micro_batch["prompts"].unbind(), micro_batch["responses"].unbind(), strict=True)
    return Sampled.padded([(prompt.tolist(), response.tolist()) for prompt, response in pairs], get_device_id())
