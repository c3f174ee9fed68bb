"""Traces made of given tokens over random attention: no model, no tokenizer, and flow that is really conserved."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from flowtracer.flow import MatrixPanels, summarise_edges, summarise_heads
from flowtracer.flow.solve import solve
from flowtracer.text.span import Span
from flowtracer.trace.trace import Trace

PROMPT = ("Ann", " has", " 3", " and", " buys", " 4", ".", " How", " many", "?", "\n")
RIGHT = (" 3", " +", " 4", " =", " 7", ".", "\n", "So", " x", " =", " 7", ".", "\n", "A", ":", " ", "7")
WRONG = (" 3", " *", " 4", " =", " 12", ".", "\n", "So", " x", " =", " 12", ".", "\n", "A", ":", " ", "12")


class _Heads:
    """Two layers of two heads that share the attention between them."""

    head_counts = (2, 2)
    panel_rows = 64

    def __init__(self, attention_TT: torch.Tensor) -> None:
        self._heads_LHTT = attention_TT * torch.tensor([[1.5, 0.5], [1.25, 0.75]])[:, :, None, None]

    def head_rows(self, start, stop):
        return (layer[None, :, start:stop, :stop] for layer in self._heads_LHTT)


def synthetic_trace(
    response: Sequence[str] = RIGHT, prompt: Sequence[str] = PROMPT, *, answer: int = 1, **changes: Any
) -> Trace:
    """A trace whose answer is the last `answer` tokens; a token's attention depends on the tokens up to it alone."""
    pieces = (*prompt, *response)
    length, first = len(pieces), len(prompt)
    attention = np.zeros((length, length))
    for k in range(1, length):
        text = "\0".join(pieces[: k + 1]).encode(errors="surrogatepass")
        row = np.random.default_rng(zlib.crc32(text)).random(k) ** 6 + 1e-4
        attention[k, :k] = row / row.sum() * 0.9
    question, sink = Span(start=0, stop=first), Span(start=length - answer, stop=length)
    panels = MatrixPanels(torch.from_numpy(attention)[None])
    masks = [torch.from_numpy(span.mask(length))[None] for span in (question, sink)]
    solution = solve(panels, *masks)
    ends = np.cumsum([len(piece) for piece in pieces])
    breaks = [first, *(k + 1 for k in range(first, length) if pieces[k].endswith("\n")), length]
    steps = tuple(Span(start=a, stop=b) for a, b in zip([0, *breaks], breaks, strict=False) if b > a)
    summary = summarise_edges(panels, solution, max_edges=100_000, steps=[steps])[0]
    heads = summarise_heads(_Heads(torch.from_numpy(attention)), solution, [summary.edges])[0]
    head_flow = np.stack(heads.head_flow)
    text = "".join(pieces)
    fields: dict[str, Any] = {
        "text": text,
        "token_ids": np.array([zlib.crc32(p.encode(errors="surrogatepass")) for p in pieces], dtype=np.int64),
        "offsets": np.stack([ends - [len(piece) for piece in pieces], ends], 1),
        "question": question,
        "response": Span(start=first, stop=length),
        "answer": sink,
        "sink": sink,
        "answer_text": "".join(pieces[-answer:]).strip(),
        "answer_rule": "given",
        "reach": solution.reach_BT[0].numpy(),
        "flow": solution.flow_BT[0].numpy(),
        "source": solution.source_BT[0].numpy(),
        "fan_in": summary.fan_in,
        "fan_out": summary.fan_out,
        "edges": summary.edges,
        "edge_heads": (heads.edge_heads + np.array([1, 0])).astype(np.int16),
        "edge_head_shares": heads.edge_head_shares,
        "head_flow": head_flow / head_flow.sum(),
        "step_spans": steps,
        "step_edges": summary.step_edges,
        "step_within": summary.step_within,
        "layers": (1, 2),
        "model": "synthetic",
        "metadata": {"id": "s"},
    }
    return Trace(**{**fields, **changes})
