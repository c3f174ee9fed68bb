"""A trace of four tokens that is easy to reckon with."""

import numpy as np

from flowtracer.text.span import Span
from flowtracer.trace import Trace
from flowtracer.trace.backbone import Edges


def make_trace(text="q: 1 2 = 3", **changes):
    """Four tokens `q`, `a`, `b`, `=`: q feeds a and b equally, both feed the answer."""
    quarter = len(text) // 4
    offsets = [[i * quarter, (i + 1) * quarter] for i in range(3)] + [[3 * quarter, len(text)]]
    fields = {
        "text": text,
        "token_ids": np.arange(4, dtype=np.int64),
        "offsets": np.array(offsets, dtype=np.int64),
        "question": Span(start=0, stop=1),
        "response": Span(start=1, stop=4),
        "answer": Span(start=3, stop=4),
        "sink": Span(start=3, stop=4),
        "answer_text": "3",
        "answer_rule": "given",
        "reach": np.array([0.5, 0.5, 0.5, 1.0]),
        "flow": np.array([1.0, 0.5, 0.5, 1.0]),
        "source": np.array([1.0, 0.0, 0.0, 0.0]),
        "fan_in": np.array([0.0, 1.0, 1.0, 2.0]),
        "fan_out": np.array([2.0, 1.0, 1.0, 0.0]),
        "edges": Edges(
            source=np.array([0, 0, 1, 2]), target=np.array([1, 2, 3, 3]), flow=np.full(4, 0.5), complete=True
        ),
        "edge_heads": np.array([[[1, 0], [2, 1]]] * 4, dtype=np.int16),
        "edge_head_shares": np.array([[0.5, 0.25]] * 4, dtype=np.float32),
        "head_flow": np.array([[0.5, 0.125], [0.125, 0.25]]),
        "step_spans": (Span(start=0, stop=1), Span(start=1, stop=4)),
        "step_edges": Edges(source=np.array([0]), target=np.array([1]), flow=np.ones(1), complete=True),
        "step_within": np.array([0.0, 1.0]),
        "layers": (1, 2),
        "model": "tiny",
        "metadata": {"id": "7", "is_correct": True},
    }
    return Trace(**{**fields, **changes})
