"""Traces made from text alone, and attention without a model.

Every token attends to what stands near, to earlier mentions of itself, and to line breaks, of which a few are read long
afterwards; a seeded draw makes tokens differ. Flow is computed from that attention as from any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from flowtracer.attention.layer import LayerAttention
from flowtracer.flow import compute_flow, summarise_edges
from flowtracer.text.span import Span
from flowtracer.trace.trace import Trace

LAYERS, HEADS, HEADS_PER_EDGE = (5, 6, 7, 8), 4, 3


def made_trace(
    prompt: Sequence[str],
    sentences: Sequence[Sequence[str]],
    *,
    answer: int = 1,
    max_edges: int = 100_000,
    metadata: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Trace:
    """A trace over given tokens; the last `answer` of them are the answer."""
    tokens = [*prompt, *(token for sentence in sentences for token in sentence)]
    length, start = len(tokens), len(prompt)
    stops = np.cumsum([len(token) for token in tokens])
    bounds = np.cumsum([start, *(len(sentence) for sentence in sentences)])
    spans = [Span(start=0, stop=start)]
    spans += [Span(start=int(a), stop=int(b)) for a, b in pairwise(bounds)]
    final = Span(start=length - answer, stop=length)
    question_T = torch.arange(length) < start
    result = compute_flow(_attention(tokens, seed), question_T, torch.arange(length) >= final.start)
    summary = summarise_edges(result.panels, result.solution, max_edges=max_edges, steps=[spans])[0]
    draw = np.random.default_rng(seed)
    kept = (len(summary.edges), HEADS_PER_EDGE)
    head_flow = draw.dirichlet(np.full(len(LAYERS) * HEADS, 0.5)).reshape(len(LAYERS), HEADS)
    heads = np.stack([draw.choice(LAYERS, kept), draw.integers(0, HEADS, kept)], axis=-1)
    return Trace(
        text="".join(tokens),
        token_ids=np.arange(length, dtype=np.int64),
        offsets=np.stack([stops - [len(token) for token in tokens], stops], axis=1).astype(np.int64),
        question=Span(start=0, stop=start),
        response=Span(start=start, stop=length),
        answer=final,
        sink=final,
        answer_text="".join(tokens[final.start :]).strip(),
        answer_rule="given",
        reach=result.reach_T.numpy(),
        flow=result.flow_T.numpy(),
        source=result.solution.source_BT[0].numpy(),
        fan_in=summary.fan_in,
        fan_out=summary.fan_out,
        edges=summary.edges,
        edge_heads=heads.astype(np.int16),
        edge_head_shares=np.sort(draw.dirichlet(np.ones(6), kept[0]), axis=1)[:, :-4:-1].astype(np.float32),
        head_flow=head_flow,
        step_spans=tuple(spans),
        step_edges=summary.step_edges,
        step_within=summary.step_within,
        layers=LAYERS,
        model="made",
        metadata=metadata or {},
    )


def random_layers(
    length: int, *, batch: int = 1, layers: int = 1, heads: int = 4, kv_heads: int = 2, width: int = 16, seed: int = 0
) -> list[LayerAttention]:
    """Causal attention of random queries and keys, as peaked as a trained model's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> torch.Tensor:
        return torch.randn(batch, count, length, width, generator=generator)

    return [
        LayerAttention(layer=layer, query_BHTD=draw(heads), key_BKTD=draw(kv_heads), scale=3 * width**-0.5, mask=None)
        for layer in range(layers)
    ]


def sums(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """A prompt and `count` sentences of sums that build on each other, the answer last."""
    draw = np.random.default_rng(seed)
    known = int(draw.integers(2, 20))
    prompt = pieces(f"Start with {known}. Do what each line says and give the last number.\n")
    lines = []
    for line in range(count):
        other = int(draw.integers(2, 60))
        known, text = (
            (known + other, f"{known} + {other}") if known < 300 or line % 3 else (known - other, f"{known} - {other}")
        )
        words = ("So we have", "Then", "Now the next line gives", "Adding it up,", "That leaves")[draw.integers(5)]
        lines.append(pieces(f"{words} {text} = {known}.\n"))
    lines.append(pieces(f"So the answer is {known}"))
    return prompt, lines


def pieces(text: str) -> list[str]:
    """Words with the space before them, digits one by one, marks alone, as tokenizers cut."""
    return re.findall(r" ?[A-Za-z]+| ?\d|\s|.", text)


def _attention(tokens: Sequence[str], seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    length = len(tokens)
    kinds = np.unique([token.strip() or token for token in tokens], return_inverse=True)[1]
    breaks = np.array(["\n" in token for token in tokens], dtype=np.float32)
    weight_T = np.exp(draw.normal(0, 1.2, length)).astype(np.float32)
    anchors_T = breaks * np.exp(draw.normal(0, 2.5, length)).astype(np.float32)
    attention_TT = np.zeros((length, length), dtype=np.float32)
    for k in range(1, length):
        distance = np.arange(k, 0, -1, dtype=np.float32)
        row = np.exp(-distance / 12) + 6 / (distance + 40) * (kinds[:k] == kinds[k])
        row = (row + 1 / length) * weight_T[:k] + anchors_T[:k] / (distance + 300)
        attention_TT[k, :k] = 0.8 * row / row.sum()
    return attention_TT
