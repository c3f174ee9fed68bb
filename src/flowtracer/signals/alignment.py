"""How much a step on each token would move the right responses of its group, at the output layer.

The gradient of `log p(y_t)` with respect to the LM head is `g_t h_t^T`, `h_t` the last hidden state and `g_t = e(y_t) -
p_t` the error of the prediction. So the inner product of two tokens' gradients is `<g_t, g_u> <h_t, h_u>`, and summed
over all tokens `u` of the right responses

    s_t = g_t^T M h_t,    M = sum_u g_u h_u^T

without a backward pass, and without comparing pairs. Errors are taken over the tokens that the group's responses hold,
as arXiv 2505.18830 does; other columns are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float, Int
from flowtracer.signals.sampled import Sampled


class ResponseAligner:
    """Runs the model over the responses of one group after the other.

    Args:
        reader: Reads hidden states and logits.
        sampled: The sequences.
        temperature: What logits are divided by.
        rows_per_forward: Sequences in one forward.
    """

    def __init__(
        self, reader: LogitReader, sampled: Sampled, *, temperature: float = 1.0, rows_per_forward: int = 8
    ) -> None:
        self._reader = reader
        self._sampled = sampled
        self._temperature = temperature
        self._size = rows_per_forward

    @torch.no_grad()
    def __call__(self, groups_B: Int[Tensor, " B"], right_B: Bool[Tensor, " B"]) -> Float[Tensor, "B R"]:
        """`s_t` of every response token; 0 in groups whose responses are all right or all wrong, and on padding."""
        ids_BR, counted_BR = self._sampled.response_ids_BR, self._sampled.response_mask_BR.bool()
        scores_BR = torch.zeros(ids_BR.shape, device=ids_BR.device)
        for group in groups_B.unique():
            rows = (groups_B == group).nonzero().squeeze(-1)
            if bool((right_B[rows] == right_B[rows[0]]).all()):
                continue
            counted_GR = counted_BR[rows]
            right_N = right_B[rows, None].expand_as(counted_GR)[counted_GR]
            scores_N = self._aligned(self._hidden(rows, counted_GR), ids_BR[rows][counted_GR], right_N)
            scores_BR[rows] = scores_BR[rows].masked_scatter(counted_GR, scores_N)
        return scores_BR

    def _hidden(self, rows: Int[Tensor, " G"], counted_GR: Bool[Tensor, "G R"]) -> Float[Tensor, "N D"]:
        """Hidden states that predict the counted tokens of some responses."""
        found = []
        for few_rows, counted in zip(rows.split(self._size), counted_GR.split(self._size), strict=True):
            few = self._sampled.few(few_rows)
            with evaluating(self._reader.model):
                found.append(self._reader.hidden(few.inputs())[:, few.first - 1 : -1][counted])
        return torch.cat(found)

    def _aligned(
        self, hidden_ND: Float[Tensor, "N D"], ids_N: Int[Tensor, " N"], right_N: Bool[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        vocabulary_V, columns_N = ids_N.unique(return_inverse=True)
        moved_VD = torch.zeros(len(vocabulary_V), hidden_ND.shape[1], device=hidden_ND.device)
        right_hidden, right_columns = hidden_ND[right_N], columns_N[right_N]
        for piece in self._reader.chunks(len(right_hidden)):
            error_NV = self._errors(right_hidden[piece], right_columns[piece], vocabulary_V)
            moved_VD += error_NV.T @ right_hidden[piece].float()
        scores = [
            ((self._errors(hidden_ND[piece], columns_N[piece], vocabulary_V) @ moved_VD) * hidden_ND[piece]).sum(-1)
            for piece in self._reader.chunks(len(hidden_ND))
        ]
        return torch.cat(scores)

    def _errors(
        self, hidden_ND: Float[Tensor, "N D"], columns_N: Int[Tensor, " N"], vocabulary_V: Int[Tensor, " V"]
    ) -> Float[Tensor, "N V"]:
        """`e(y_t) - p_t` over some tokens of the vocabulary."""
        probs_NV = (self._reader.logits(hidden_ND) / self._temperature).softmax(-1)[:, vocabulary_V]
        ones_N1 = torch.ones(len(columns_N), 1, device=probs_NV.device)
        return (-probs_NV).scatter_add(1, columns_N[:, None], ones_N1)
