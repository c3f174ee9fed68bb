"""Random graphs for hypothesis: sparse and dense, with dead ends, several answers and questions that reach nothing."""

import numpy as np
import torch
from hypothesis import strategies as st


@st.composite
def graphs(draw, max_tokens=8, sparse=True):
    """Attention (T, T), question and answer masks; rows sum to at most 1, the diagonal and beyond are noise."""
    length = draw(st.integers(2, max_tokens))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    attention = rng.random((length, length)) ** draw(st.sampled_from([1, 4]))
    if sparse:
        attention *= rng.random((length, length)) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    attention /= np.maximum(np.tril(attention).sum(1, keepdims=True), 1)
    question = rng.random(length) < 0.5
    answer = rng.random(length) < 0.3
    question[0] = True
    answer[-1] |= draw(st.booleans()) or not answer.any()
    return torch.from_numpy(attention), torch.from_numpy(question), torch.from_numpy(answer)


@st.composite
def connected_graphs(draw, max_tokens=40):
    """Dense attention, so that every question token reaches the answer; question first, answer last."""
    length = draw(st.integers(4, max_tokens))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    attention = np.tril(rng.random((length, length)) ** 3 + 1e-3)
    attention /= attention.sum(1, keepdims=True)
    start, stop = 1 + draw(st.integers(0, length // 3)), length - 1 - draw(st.integers(0, length // 3))
    question, answer = np.zeros(length, bool), np.zeros(length, bool)
    question[:start] = True
    answer[stop : stop + draw(st.integers(1, 3))] = True
    return torch.from_numpy(attention), torch.from_numpy(question), torch.from_numpy(answer)
