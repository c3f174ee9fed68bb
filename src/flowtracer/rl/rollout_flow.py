"""Flow over the sequences that a trainer has just sampled: token ids in, throughput of the response tokens out.

1. Decode each response and locate its answer, on the very tokens that were sampled.
2. One truncated forward over the rows that have an answer, in slices of a fixed size.
3. Two sweeps over the panels; no edges are read off, so nothing of size T x T outlives a slice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowtracer.answer import Miss, locate_answer
from flowtracer.attention import AttentionPanels
from flowtracer.capture import AttentionReader
from flowtracer.flow import solve, within_budget
from flowtracer.offsets import token_offsets, tokens_overlapping
from flowtracer.shapes import Bool, Float, Int
from flowtracer.trace import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFlow:
    """Throughput of a batch of responses."""

    throughput_BR: Float[Tensor, "B R"]
    traced_B: Bool[Tensor, " B"]
    misses: Counter[str]
    """Why the others were not traced, by named reason."""


def answer_in_response(tokenizer: Any, response_ids: Sequence[int]) -> Span | Miss:
    """Where the answer stands among a response's own tokens; end-of-text tokens are no part of the text."""
    special = set(tokenizer.all_special_ids)
    length = len(response_ids)
    while length and response_ids[length - 1] in special:
        length -= 1
    text, offsets = token_offsets(tokenizer, list(response_ids[:length]))
    found = locate_answer(text)
    if isinstance(found, Miss):
        return found
    tokens = tokens_overlapping(offsets, found.span)
    return Span(start=tokens.start, stop=tokens.stop) if tokens is not None else Miss.NO_ANSWER


def rollout_flow(
    reader: AttentionReader,
    tokenizer: Any,
    prompt_ids_BP: Int[Tensor, "B L"],
    prompt_mask_BP: Int[Tensor, "B L"],
    response_ids_BR: Int[Tensor, "B R"],
    response_mask_BR: Int[Tensor, "B R"],
    *,
    at: str = "token",
    rows_per_forward: int = 8,
    every_rank_alike: bool = False,
) -> RolloutFlow:
    """Throughput of every response token, from the whole prompt to the response's own final answer.

    Args:
        reader: Reads the model's attention.
        tokenizer: Turns response tokens into text, to find the answer.
        prompt_ids_BP: Prompts, padded on the left.
        prompt_mask_BP: 1 on prompt tokens.
        response_ids_BR: Responses, padded on the right.
        response_mask_BR: 1 on response tokens.
        at: The flow ends at the answer's "token"s, or at the positions of their "prediction".
        rows_per_forward: Sequences in one forward.
        every_rank_alike: Run the same number of whole forwards whatever was found: a model sharded over processes
            hangs otherwise.
    """
    batch, width = response_ids_BR.shape
    offset = prompt_ids_BP.shape[1]
    device = prompt_ids_BP.device
    answer_BT = torch.zeros(batch, offset + width, dtype=torch.bool, device=device)
    misses: Counter[str] = Counter()
    lengths = response_mask_BR.sum(-1).tolist()
    shift = 1 if at == "prediction" else 0
    for row, (ids, length) in enumerate(zip(response_ids_BR.tolist(), lengths, strict=True)):
        found = answer_in_response(tokenizer, ids[: int(length)])
        if isinstance(found, Miss):
            misses[found.value] += 1
        else:
            answer_BT[row, offset + found.start - shift : offset + found.stop - shift] = True
    ids_BT = torch.cat([prompt_ids_BP, response_ids_BR], 1)
    mask_BT = torch.cat([prompt_mask_BP, response_mask_BR], 1)
    throughput_BT = torch.zeros(batch, offset + width, device=device)
    traced_B = torch.zeros(batch, dtype=torch.bool, device=device)
    wanted = torch.arange(batch, device=device) if every_rank_alike else answer_BT.any(-1).nonzero().squeeze(-1)
    for rows in wanted.split(rows_per_forward) if len(wanted) else ():
        flow = _slice_flow(reader, ids_BT[rows], mask_BT[rows], answer_BT[rows], offset, not every_rank_alike)
        if flow is not None:
            throughput_BT[rows, : flow[0].shape[1]], traced_B[rows] = flow[0].float(), flow[1]
    misses["no_flow"] = int(answer_BT.any(-1).sum() - traced_B.sum())
    return RolloutFlow(throughput_BR=throughput_BT[:, offset:], traced_B=traced_B, misses=+misses)


def _slice_flow(
    reader: AttentionReader, ids_BT: Tensor, mask_BT: Tensor, answer_BT: Tensor, offset: int, stop_early: bool
) -> tuple[Tensor, Tensor] | None:
    """Throughput and validity of a few rows, over the columns that the flow needs; None if no row has an answer."""
    ends = answer_BT.any(0).nonzero()
    stop = int(ends[-1]) + 1 if len(ends) else ids_BT.shape[1]
    # Columns that hold only padding cost attention and say nothing.
    start = int(mask_BT.any(0).nonzero()[0])
    ids_BT, mask_BT, answer_BT = (x[:, start:stop] for x in (ids_BT, mask_BT, answer_BT))
    positions_BT = (mask_BT.cumsum(-1) - 1).clamp_min(0)
    padded = None if bool(mask_BT.all()) else mask_BT
    layers = reader.read(ids_BT, padded, positions_BT if padded is not None else None, stop_early=stop_early)
    if not len(ends):
        return None
    question_BT = mask_BT.bool().clone()
    question_BT[:, offset - start :] = False
    solution = solve(within_budget(AttentionPanels(layers)), question_BT, answer_BT)
    valid_B = solution.finite_B & solution.connected_B
    throughput_BT = torch.where(valid_B[:, None], solution.throughput_BT, 0.0)
    return torch.nn.functional.pad(throughput_BT, (start, 0)), valid_B
