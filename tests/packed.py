"""A page's data, read by the rules that report/payload.py states."""

import base64
import gzip
import json

import numpy as np


def unpacked(packed):
    """Header and arrays."""
    content = gzip.decompress(base64.b64decode(packed))
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    arrays, at = {}, 4 + length
    for note in header["arrays"]:
        width = int(note["kind"][1])
        planes = np.frombuffer(content, np.uint8, width * note["length"], at).reshape(width, -1)
        bits = np.ascontiguousarray(planes.T).view(f"<u{width}").ravel()
        if note["differences"]:
            bits = np.cumsum(bits, dtype=bits.dtype)
        arrays[note["name"]] = bits.view("<f4") if note["kind"] == "f4" else bits
        at += width * note["length"]
    assert at == len(content)
    return header, arrays
