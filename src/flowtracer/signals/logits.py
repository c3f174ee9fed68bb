"""Logits of chosen positions out of a running model, and what they say about each sampled token.

1. Run the decoder without its LM head; its last hidden states are small.
2. Apply the head, with the scale and soft cap that the configuration names, to a few positions at a time: no tensor of
   batch x length x vocabulary ever exists.
3. At construction a forward over a few tokens proves that this gives the model's own logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Float
from flowtracer.signals.sampled import Sampled


def token_logits(
    reader: LogitReader, sampled: Sampled, *, temperature: float = 1.0, rows_per_forward: int = 8
) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Entropy of the distribution that each response token was drawn from, and the token's log-probability.

    Every rank runs the same number of forwards. Padding gets 0.
    """
    entropy_BR, log_prob_BR = torch.zeros(2, *sampled.response_ids_BR.shape, device=sampled.device)
    for rows in sampled.slices(rows_per_forward):
        few = sampled.few(rows)
        with evaluating(reader.model), torch.no_grad():
            # Position t predicts token t + 1.
            hidden_BRD = reader.hidden(few.inputs())[:, few.first - 1 : -1]
            counted_BR = few.mask_BT[:, few.first :].bool()
            hidden_ND, targets_N = hidden_BRD[counted_BR], few.ids_BT[:, few.first :][counted_BR]
            entropy_N, log_prob_N = torch.zeros(2, len(targets_N), device=sampled.device)
            for piece in reader.chunks(len(targets_N)):
                log_probs_NV = (reader.logits(hidden_ND[piece]) / temperature).log_softmax(-1)
                log_prob_N[piece] = log_probs_NV.gather(-1, targets_N[piece, None]).squeeze(-1)
                entropy_N[piece] = torch.special.entr(log_probs_NV.exp_()).sum(-1)
        entropy_BR[rows] = torch.zeros_like(entropy_BR[rows]).masked_scatter(counted_BR, entropy_N)
        log_prob_BR[rows] = torch.zeros_like(log_prob_BR[rows]).masked_scatter(counted_BR, log_prob_N)
    return entropy_BR, log_prob_BR


def output_gradients(
    reader: LogitReader, sampled: Sampled, *, temperature: float = 1.0, rows_per_forward: int = 8
) -> Float[Tensor, "B R D"]:
    """`(1 - p_t) h_t` of each response token: the gradient of its log p with respect to its own row of the LM head.

    Every rank runs the same number of forwards. Padding gets 0.
    """
    weight = reader.model.get_output_embeddings().weight
    shape = *sampled.response_ids_BR.shape, weight.shape[1]
    gradient_BRD = torch.zeros(shape, dtype=weight.dtype, device=sampled.device)
    for rows in sampled.slices(rows_per_forward):
        few = sampled.few(rows)
        with evaluating(reader.model), torch.no_grad():
            hidden_BRD = reader.hidden(few.inputs())[:, few.first - 1 : -1]
            counted_BR = few.mask_BT[:, few.first :].bool()
            targets_N = few.ids_BT[:, few.first :][counted_BR]
            hidden_ND = hidden_BRD[counted_BR]
            prob_N = reader.log_probs(hidden_ND, targets_N, temperature=temperature).exp()
        pieces_BRD = torch.zeros_like(gradient_BRD[rows])
        pieces_BRD[counted_BR] = ((1 - prob_N)[:, None] * hidden_ND).to(pieces_BRD)
        gradient_BRD[rows] = pieces_BRD
    return gradient_BRD
