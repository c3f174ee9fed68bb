"""Gradients at the input embeddings of a running model: what the answer is sensitive to.

1. The output of the embedding layer becomes a leaf: its gradient is all that a backward pass is asked for, none of
   the parameters'. Later scales of the embeddings do not matter, since gradient times embedding is free of them.
2. Saliency: `|| d(-log p(answer)) / d e_t * e_t ||`, element by element, the answer given token by token, its logits
   divided by the sampling temperature.
3. Influence: `| dJ/de_t . e_t |`, `J = KL(P0 || P_noisy)`, the softmax of the mean of the logits that predict the
   answer's tokens, without and with Gaussian noise on the embeddings of the reasoning.

Rows are independent, so one backward pass serves a slice. Columns after the answer are cut off: they change nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowtracer.model.forward import evaluating
from flowtracer.model.logits import LogitReader
from flowtracer.shapes import Bool, Float
from flowtracer.signals.sampled import Few, Sampled

NOISE = 1e-3
"""Deviation of the noise on embeddings (arXiv 2601.07408)."""


def read_saliency(
    reader: LogitReader,
    sampled: Sampled,
    answer_BR: Bool[Tensor, "B R"],
    *,
    temperature: float = 1.0,
    rows_per_forward: int = 8,
) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Saliency of each response token, and of the position before each; 0 where there is no answer."""
    here_BR, before_BR = torch.zeros(2, *answer_BR.shape, device=sampled.device)
    for few, target_BT in _answered(sampled, answer_BR, rows_per_forward):
        with _leaf_embeddings(reader.model) as leaves, torch.enable_grad():
            hidden_BTD = reader.hidden(few.inputs())
            predicting_BT, targets_N = target_BT.roll(-1, 1), few.ids_BT[target_BT]
            log_probs_N = reader.log_probs(hidden_BTD[predicting_BT], targets_N, temperature=temperature)
            (gradient_BTD,) = torch.autograd.grad(-log_probs_N.sum(), leaves)
        norm_BT = (gradient_BTD.float() * leaves[0].detach().float()).norm(dim=-1) * few.mask_BT
        width = norm_BT.shape[1] - few.first
        here_BR[few.numbers, :width] = norm_BT[:, few.first :]
        before_BR[few.numbers, :width] = norm_BT[:, few.first - 1 : -1]
    return here_BR, before_BR


def read_influence(
    reader: LogitReader,
    sampled: Sampled,
    answer_BR: Bool[Tensor, "B R"],
    reasoning_BR: Bool[Tensor, "B R"],
    seeds_B: tuple[int, ...],
    *,
    rows_per_forward: int = 8,
) -> Float[Tensor, "B R"]:
    """Influence of each reasoning token; 0 elsewhere, and where there is no answer."""
    influence_BR = torch.zeros(answer_BR.shape, device=sampled.device)
    width_D = reader.model.get_input_embeddings().weight.shape[1]
    for few, target_BT in _answered(sampled, answer_BR, rows_per_forward):
        predicting_BT = target_BT.roll(-1, 1)
        width = few.ids_BT.shape[1] - few.first
        noisy_BR = reasoning_BR[few.numbers, :width]
        noise_BTD = torch.zeros(*few.ids_BT.shape, width_D)
        for place, row in enumerate(few.numbers.tolist()):
            # By the response's own seed, on the CPU: the same in whatever batch and on whatever device.
            generator = torch.Generator().manual_seed(seeds_B[row] % 2**63)
            drawn = torch.randn(int(noisy_BR[place].sum()), width_D, generator=generator)
            noise_BTD[place, few.first :][noisy_BR[place].cpu()] = NOISE * drawn
        with evaluating(reader.model), torch.no_grad():
            clean_BV = _mean_logits(reader, few, predicting_BT).log_softmax(-1)
        with _leaf_embeddings(reader.model, noise_BTD) as leaves, torch.enable_grad():
            moved_BV = _mean_logits(reader, few, predicting_BT).log_softmax(-1)
            divergence = torch.nn.functional.kl_div(moved_BV, clean_BV, reduction="sum", log_target=True)
            (gradient_BTD,) = torch.autograd.grad(divergence, leaves)
        clean_BTD = leaves[0].detach().float() - noise_BTD.to(gradient_BTD.device)
        found_BT = (gradient_BTD.float() * clean_BTD).sum(-1).abs()
        influence_BR[few.numbers, :width] = torch.where(noisy_BR, found_BT[:, few.first :], 0.0)
    return influence_BR


def _mean_logits(reader: LogitReader, few: Few, chosen_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B V"]:
    """Logits of each sequence, averaged over its chosen positions."""
    logits_NV = reader.logits(reader.hidden(few.inputs())[chosen_BT])
    counts_B = chosen_BT.sum(-1)
    return torch.stack([part_NV.mean(0) for part_NV in logits_NV.split(counts_B.tolist())])


def _answered(
    sampled: Sampled, answer_BR: Bool[Tensor, "B R"], rows_per_forward: int
) -> Iterator[tuple[Few, Bool[Tensor, "B T"]]]:
    """Slices of the sequences with an answer, each up to its last answer token, and the answer's columns."""
    for rows in sampled.slices(rows_per_forward, answer_BR.any(-1).nonzero().squeeze(-1)):
        stop = int(answer_BR[rows].any(0).nonzero()[-1]) + 1
        few = sampled.few(rows, stop)
        yield few, torch.nn.functional.pad(answer_BR[rows, :stop], (few.first, 0))


@contextlib.contextmanager
def _leaf_embeddings(model: Any, noise_BTD: Tensor | None = None) -> Iterator[list[Tensor]]:
    """Make the embeddings of the next forward a leaf, with noise; it is the first of the list once that has run."""
    leaves: list[Tensor] = []

    def replace(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        leaf = output.detach() if noise_BTD is None else output.detach() + noise_BTD.to(output)
        leaves.append(leaf.requires_grad_())
        return leaf

    handle = model.get_input_embeddings().register_forward_hook(replace)
    try:
        with evaluating(model):
            yield leaves
    finally:
        handle.remove()
