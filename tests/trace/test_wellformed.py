"""A trace whose digest is right may still be none: what was signed is looked at field by field."""

import dataclasses

import numpy as np
import pytest

from flowtracer.errors import FormatError
from flowtracer.text.span import Span
from flowtracer.trace import TrainedOn, load_trace
from flowtracer.trace.backbone import Edges
from flowtracer.trace.wellformed import check
from synthetic import synthetic_trace
from traces import make_trace


def edges(source=0, target=1, flow=1.0):
    return Edges(source=np.array([source]), target=np.array([target]), flow=np.array([flow]), complete=True)


FAULTS = {
    "model": {"model": 3},
    "layers": {"layers": ("one", "two")},
    "token_ids": {"token_ids": np.zeros(4)},
    "question": {"question": Span(start=0, stop=0)},
    "answer": {"answer": Span(start=3, stop=5)},
    "sink": {"sink": Span(start=2, stop=1)},
    "offsets": {"offsets": np.array([[0, 2], [2, 4], [4, 6], [6, 99]])},
    "steps": {"step_spans": (Span(start=0, stop=1), Span(start=2, stop=4))},
    "flow": {"flow": np.array([1.0, np.nan, 0.5, 1.0])},
    "reach": {"reach": np.array([1.0, np.inf, 0.5, 1.0])},
    "expected_flow": {"expected_flow": np.ones(3)},
    "step_within": {"step_within": np.ones(3)},
    "edges' target": {"edges": edges(target=4)},
    "edges' direction": {"edges": edges(source=2, target=1)},
    "edges' flow": {"edges": edges(flow=-0.5)},
    "step_edges' source": {"step_edges": edges(source=-1)},
    "edge_heads": {"edge_heads": np.zeros((3, 1, 2), dtype=np.int16)},
    "edge_head_shares": {"edge_head_shares": np.zeros((4, 1))},
    "head_flow": {"head_flow": np.zeros((3, 2))},
    "effects": {"effects": {9: 0.5}},
    "trained_factor": {"trained": TrainedOn(step=1, advantage=0.5, factor=np.ones(3), token_advantage=np.ones(3))},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_named(tmp_path, fault):
    trace = make_trace()
    for name, value in FAULTS[fault].items():
        object.__setattr__(trace, name, value)  # tests check types where an object is made, and users do not
    with pytest.raises(ValueError, match=f"{fault} cannot be that of a trace"):
        check(trace)
    with pytest.raises(FormatError, match="expected a trace written by"):
        load_trace(trace.save(tmp_path / "t.safetensors"))


def test_what_can_be_is_read(tmp_path):
    for trace in (make_trace(), synthetic_trace(), make_trace(effects={2: -0.5}, expected_flow=np.ones(4))):
        assert load_trace(trace.save(tmp_path / "t.safetensors")) == trace
    whole = synthetic_trace()
    none = {"edges": whole.edges.top(0), "edge_heads": whole.edge_heads[:0]}
    cut = dataclasses.replace(whole, **none, edge_head_shares=whole.edge_head_shares[:0])
    assert load_trace(cut.save(tmp_path / "t.safetensors")) == cut
