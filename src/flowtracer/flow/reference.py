"""The flow as its equations are written, in float64, one sequence and one token at a time.

Equations (1)-(4) of docs/method.md, with `W'` stored whole, and (7)-(10) with a walk for each token. Slow,
quadratic in memory, and the judge of every faster path. Like any plain float64 it underflows where reach falls
below 1e-308; `panels` does not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowtracer.flow.solution import LayerPanelSource, PanelSource, Solution
from flowtracer.shapes import Bool, Float


def solve(panels: PanelSource, question_BT: Bool[Tensor, "B T"], answer_BT: Bool[Tensor, "B T"]) -> Solution:
    """Reach and flow of every sequence of a batch; the same contract as `panels.solve`."""
    length = panels.length
    attention_BTT = panels.rows(0, length).to("cpu", torch.float64)
    reach_BT = torch.zeros(panels.batch, length, dtype=torch.float64)
    flow_BT = torch.zeros_like(reach_BT)
    for b, (W, Q, A) in enumerate(zip(attention_BTT, question_BT.cpu(), answer_BT.cpu(), strict=True)):
        W = W.tril(-1)
        h, f = reach_BT[b], flow_BT[b]
        for i in reversed(range(length)):  # (2)
            h[i] = 1.0 if A[i] else W[i + 1 :, i] @ h[i + 1 :]
        W_answer = torch.where(h > 0, W * h[:, None] / h, 0.0)  # (3)
        W_answer[:, A] = 0.0  # answer tokens feed only the sink
        entering = Q & (h > 0)
        s = entering.double() / entering.sum().clamp_min(1)
        for k in range(length):  # (4)
            f[k] = s[k] + W_answer[k, :k] @ f[:k]
    device = panels.device
    return Solution(
        log_reach_BT=reach_BT.log().to(device),
        log_inflow_BT=torch.where(reach_BT > 0, flow_BT / reach_BT, 0.0).log().to(device),
        question_BT=question_BT,
        answer_BT=answer_BT,
    )


def solve_layered(
    panels: LayerPanelSource,
    question_BT: Bool[Tensor, "B T"],
    answer_BT: Bool[Tensor, "B T"],
    *,
    ends: str = "anywhere",
) -> Float[Tensor, "B T"]:
    """Flow of every token over (token, layer), by its definition: a walk that is caught as soon as it is at the token.

    What is caught there and ends as it should, over what ends as it should at all.
    """
    matrix_LBTT = torch.stack([panels.rows(layer, 0, panels.length) for layer in range(panels.layers)])
    matrix_LBTT = matrix_LBTT.to("cpu", torch.float64)
    matrix_LBTT = matrix_LBTT / matrix_LBTT.sum(-1, keepdim=True)
    flow_BT = torch.zeros(panels.batch, panels.length, dtype=torch.float64)
    for b, (Q, A) in enumerate(zip(question_BT.cpu(), answer_BT.cpu(), strict=True)):
        e = [Q.double() if ends == "question" else torch.ones(panels.length, dtype=torch.float64)]
        for C in matrix_LBTT[:, b]:  # (8), from the first layer up
            e.append(C @ e[-1])
        start = A.double() / A.sum().clamp_min(1)
        Z = start @ e[-1]
        for t in range(panels.length):
            p = start.clone()
            for C, below in zip(matrix_LBTT[:, b].flip(0), reversed(e), strict=False):  # (7), from the last layer down
                flow_BT[b, t] += p[t] * below[t]
                p[t] = 0.0
                p = p @ C
            flow_BT[b, t] += p[t] * e[0][t]
        flow_BT[b] /= Z if Z > 0 else 1.0
    return flow_BT.to(panels.device)
