"""A trace as one short text that the page unpacks.

1. All that is no array is JSON in pure ASCII, so that any text survives, half a surrogate pair included.
2. Numbers are rounded to 13 significant bits (1 part in 8,192), which no eye can tell apart, except what a trainer
   trained on, which is kept as float32. An array that rises or falls is kept as differences: of its integers, or of the
   bit patterns of its floats.
3. Bytes are stored plane by plane, all lowest bytes first: the high planes are nearly constant and vanish in gzip.
4. `length of the JSON (4 bytes) | JSON | planes of every array`, gzip, base64. The browser's own `DecompressionStream`
   opens it.

Positions in the text count UTF-16 units, as the browser's strings do.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowtracer.trace.backbone import kept_share
from flowtracer.trace.images import WEBP, frame_marks, image_marks
from flowtracer.trace.measures import verdict
from flowtracer.trace.summary import image_shares
from flowtracer.trace.trace import Trace

HUBS = 12
PATHS = 4
"""Paths through steps, and as many through words."""
STEP_EDGES = 6_000
"""Largest flows between sentences; beyond that many no screen has room."""
HEADED_EDGES = 40_000
"""Largest edges whose heads are told: all of them would double the page."""
_LONGEST_VALUE = 500
_DROPPED_BITS = 11


def pack(
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    ordered: frozenset[str] = frozenset(),
    exact: frozenset[str] = frozenset(),
) -> str:
    """Pack a header and arrays.

    Args:
        header: Ready for JSON.
        arrays: Whole numbers from 0, or floats.
        ordered: Names of arrays that are kept as differences.
        exact: Names of floats that are not rounded.
    """
    described, planes = [], []
    for name, array in arrays.items():
        kind = "f4" if array.dtype.kind == "f" else _narrowest(array)
        if kind == "f4":
            bits = array.astype("<f4").view("<u4") if name in exact else _rounded_bits(array)
        else:
            bits = array.astype(f"<{kind}")
        if name in ordered:
            bits = np.diff(bits, prepend=bits.dtype.type(0))  # wraps around, and so does its inverse
        described.append({"name": name, "kind": kind, "length": int(array.size), "differences": name in ordered})
        planes.append(bits.view(np.uint8).reshape(-1, bits.itemsize).T.tobytes())
    text = json.dumps({**header, "arrays": described}, allow_nan=False, separators=(",", ":")).encode("ascii")
    content = len(text).to_bytes(4, "little") + text + b"".join(planes)
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def pack_trace(trace: Trace, most_edges: int | None = None, *, header: Mapping[str, Any] | None = None) -> str:
    """Everything that the page of one trace shows.

    Args:
        trace: The trace.
        most_edges: Arcs of the largest so many edges alone; None for all.
        header: What `describe` says of the trace, where it has been asked.
    """
    edges = trace.edges if most_edges is None else trace.edges.top(most_edges)
    headed = min(len(edges), HEADED_EDGES)
    starts, stops = utf16_offsets(trace)
    steps = np.array([[span.start, span.stop] for span in trace.step_spans], dtype=np.int64).reshape(-1, 2)
    exchanged = trace.step_edges.top(STEP_EDGES)
    arrays = {
        "token_start": starts,
        "token_stop": stops,
        "flow": trace.flow,
        "source": trace.source,
        "fan_in": trace.fan_in,
        "fan_out": trace.fan_out,
        "edge_flow": edges.flow,
        "edge_target": edges.target,
        "edge_distance": edges.target - edges.source,
        "step_start": steps[:, 0],
        "step_stop": steps[:, 1],
        "step_share": np.array([step.inflow for step in trace.steps()], dtype=np.float64),
        "step_edge_source": exchanged.source,
        "step_edge_target": exchanged.target,
        "step_edge_flow": exchanged.flow,
        "head_flow": trace.head_flow.ravel(),
        **_heads(trace, headed),
    }
    if trace.images:
        arrays |= _images(trace)
    if trace.trained is not None:
        arrays |= {name: getattr(trace.trained, name) for name in _TRAINED}
    return pack(describe(trace) if header is None else header, arrays, _ORDERED, frozenset(_TRAINED))


_ORDERED = frozenset({"token_start", "token_stop", "edge_flow", "step_start", "step_stop"})
_TRAINED = ("factor", "token_advantage")


def utf16_offsets(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops of the tokens in UTF-16 units, each (T,)."""
    points = np.frombuffer(trace.text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    units = np.concatenate([[0], np.cumsum(1 + (points > 0xFFFF))])
    return units[trace.offsets[:, 0]], units[trace.offsets[:, 1]]


def _heads(trace: Trace, edges: int) -> dict[str, np.ndarray]:
    """Strongest heads of the largest edges: place of layer and head in `head_flow`, and share in 255ths."""
    heads = trace.edge_heads[:edges].astype(np.int64)
    layer = np.searchsorted(trace.layers, heads[..., 0])
    shares = np.rint(255 * trace.edge_head_shares[:edges])
    return {
        "edge_head": (layer * trace.head_flow.shape[1] + heads[..., 1]).T.ravel(),
        "edge_head_share": shares.astype(np.int64).T.ravel(),
    }


def _images(trace: Trace) -> dict[str, np.ndarray]:
    """Of every token the number of the image that it is of, or that it frames; and of every view its tokens."""
    marks_T = image_marks(trace.images, len(trace))
    return {
        "image_of": marks_T,
        "frame_of": frame_marks(marks_T, trace.tokens),
        "patch_token": np.concatenate([view.ravel() for image in trace.images for view in image.views]),
    }


def _pictures(trace: Trace) -> list[dict[str, Any]]:
    return [
        {
            "picture": f"data:{WEBP};base64,{base64.b64encode(image.picture).decode('ascii')}",
            "placed": image.placed,
            "views": [list(view.shape) for view in image.views],
            "share": float(share),
        }
        for image, share in zip(trace.images, image_shares(trace), strict=True)
    ]


def describe(trace: Trace) -> dict[str, Any]:
    """All of a trace that is no array, ready for JSON; hubs and paths are searched here, once."""
    walks = trace.walk_graph
    return {
        "text": trace.text,
        "summary": trace.summary(),
        "answer_text": trace.answer_text,
        "answer_rule": trace.answer_rule,
        "verdict": verdict(trace),
        "share_kept": min(1.0, kept_share(walks, len(walks.edges))),
        "complete": trace.edges.complete,
        "model": trace.model,
        "layers": list(trace.layers),
        "heads_per_edge": trace.edge_heads.shape[1],
        "at": trace.at,
        "trained": trace.trained and {"step": trace.trained.step, "advantage": trace.trained.advantage},
        "metadata": _shown_metadata(trace.metadata),
        **{name: [span.start, span.stop] for name in _SPANS for span in [getattr(trace, name)]},
        "images": _pictures(trace),
        "hubs": [{**hub.to_dict(), "effect": trace.effects.get(hub.token)} for hub in trace.hubs(HUBS)],
        "paths": [
            {**path.to_dict(), "level": level}
            for level in ("steps", "words")
            for path in trace.paths(PATHS, level=level)
        ],
    }


_SPANS = ("question", "response", "answer", "sink")


def _shown_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Single values; a text that is no label but a document is cut."""
    shown: dict[str, Any] = {}
    for name, value in metadata.items():
        if isinstance(value, str):
            shown[name] = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"
        elif value is None or isinstance(value, bool | int | float):
            shown[name] = value
    return shown


def _narrowest(values: np.ndarray) -> str:
    largest = int(values.max(initial=0))
    return next(kind for kind, limit in (("u1", 1 << 8), ("u2", 1 << 16), ("u4", 1 << 32)) if largest < limit)


def _rounded_bits(values: np.ndarray) -> np.ndarray:
    """Bit patterns of float32, rounded to the bits that are kept; never rounded up into infinity."""
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    kept = ((bits + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS) << _DROPPED_BITS
    return kept.astype("<u4")
