"""Logits of chosen positions out of a running model.

1. Run the decoder without its LM head; its last hidden states are small.
2. Apply the head, with the scale and soft cap that the configuration names, to a few positions at a time: no tensor of
   batch x length x vocabulary ever exists.
3. At construction a forward over a few tokens proves that this gives the model's own logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from flowtracer.errors import CaptureError
from flowtracer.model.forward import backbone_of, evaluating
from flowtracer.shapes import Float, Int

_CHUNK_BYTES = 64 * 2**20
"""Working memory of one chunk of logits in float32."""

_OF_TEXT = {"input_ids", "attention_mask", "position_ids"}
"""What a decoder takes; the rest is of images."""

# Names under which configurations keep a factor of the logits, and whether they multiply by it.
_SCALES = (("logit_scale", True), ("output_multiplier", True), ("lm_head_multiplier", True), ("logits_scaling", False))


class LogitReader:
    """Last hidden states of a model, and the logits of those that are asked for.

    Raises:
        CaptureError: The model's own logits are not reproduced.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._scale = 1.0
        for name, multiplies in _SCALES:
            value = getattr(config, name, None)
            if value is not None:
                self._scale *= value if multiplies else 1 / value
        self._prove()

    def _prove(self) -> None:
        embeddings = self.model.get_input_embeddings()
        ids = torch.arange(8, device=embeddings.weight.device)[None] % embeddings.num_embeddings
        with evaluating(self.model), torch.no_grad():
            expected = self.model(input_ids=ids, use_cache=False).logits.float()
            got = self.logits(self.hidden({"input_ids": ids}))
        if not bool(expected.isfinite().all()):
            raise CaptureError(
                f"expected finite logits of {type(self.model).__name__}, got NaN or infinity; check the model's "
                "weights and its dtype"
            )
        # Half precision rounds scale and cap on its own way.
        tolerance = 1e-3 if embeddings.weight.dtype == torch.float32 else 5e-2
        close = got.shape == expected.shape and (got - expected).abs().max() <= tolerance * expected.abs().max()
        if not close:
            raise CaptureError(
                f"expected the logits of {type(self.model).__name__} to follow from its last hidden states and its LM "
                "head, got others: its head does something that FlowTracer does not know; please report the model"
            )

    def hidden(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "B T D"]:
        """Hidden states behind the last layer, with gradients where they are enabled."""
        body = self.model.get_decoder() if inputs.keys() <= _OF_TEXT else backbone_of(self.model)
        output = body(**inputs, use_cache=False)
        if not hasattr(output, "last_hidden_state"):
            raise CaptureError(
                f"expected {type(self.model).__name__} to hand out its decoder without the LM head, got a decoder "
                f"whose output, {type(output).__name__}, holds no last hidden state; its logits cannot be read"
            )
        return output.last_hidden_state

    def logits(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Logits of some hidden states, in float32."""
        logits = self.model.get_output_embeddings()(hidden).float() * self._scale
        return logits if self._softcap is None else (logits / self._softcap).tanh() * self._softcap

    def chunks(self, positions: int) -> Iterator[slice]:
        """Cut so many positions into pieces whose logits fit the working memory."""
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        size = max(1, _CHUNK_BYTES // (4 * vocabulary))
        yield from (slice(start, start + size) for start in range(0, positions, size))

    def log_probs(
        self, hidden_ND: Float[Tensor, "N D"], targets_N: Int[Tensor, " N"], *, temperature: float = 1.0
    ) -> Float[Tensor, " N"]:
        """Log-probability of a token at each of some positions, in chunks."""
        parts = [
            (self.logits(hidden_ND[piece]) / temperature).log_softmax(-1).gather(-1, targets_N[piece, None]).squeeze(-1)
            for piece in self.chunks(len(targets_N))
        ]
        return torch.cat(parts) if parts else hidden_ND.new_zeros(0, dtype=torch.float32)
