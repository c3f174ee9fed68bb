"""What users rely on is what it was, or the change is meant: `tests/public.json`, and traces of every schema so far."""

import json
from pathlib import Path

import numpy as np
import pytest

from flowtracer.trace import load_trace
from flowtracer.trace.trace import SCHEMA_VERSION
from public import FILE, as_text, public

OLDER = Path(__file__).parent / "trace" / "older"
MEANT = """%s is not what tests/public.json says.
Was it not meant? Then mend the code. Was it? Then
1. `python tests/public.py` writes the file anew: commit it with the change;
2. say under "Unreleased" in CHANGELOG.md what a user has to write instead;
3. what was there goes on working for a minor release, with a warning: docs/compatibility.md has the policy;
4. another content of trace files is another SCHEMA_VERSION, and a trace of the one before is kept in tests/trace/older.
"""


@pytest.fixture(scope="module")
def now():
    return json.loads(as_text(public()))


KNOWN = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", KNOWN)
def test_it_is_what_it_was(part, now):
    assert now.get(part) == KNOWN[part], MEANT % part


def test_nothing_came_unnoticed(now):
    assert set(now) == set(KNOWN), MEANT % "The list of parts"


@pytest.mark.parametrize("schema", range(1, SCHEMA_VERSION + 1))
def test_a_trace_of_every_schema_so_far_opens(schema, tmp_path):
    """Files that the code of that time wrote."""
    trace = load_trace(OLDER / f"schema-{schema}.safetensors")
    assert trace.schema_version == SCHEMA_VERSION
    assert trace.text == "q: 1 2 = 3"
    np.testing.assert_array_equal(trace.flow, [1.0, 0.5, 0.5, 1.0])
    np.testing.assert_array_equal(trace.edges.flow, [0.5] * 4)
    assert [hub.token for hub in trace.hubs(level="tokens")] == [1, 2]
    assert len(trace.steps()) == 2
    assert (trace.expected_flow is None) == (schema < 4)
    assert load_trace(trace.save(tmp_path / "new.safetensors")) == trace
