"""Pages as files: what is in them before any browser reads them."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from flowtracer.errors import InputError
from flowtracer.report.page import html
from flowtracer.report.page.payload import pack, pack_trace, utf16_offsets
from flowtracer.text.span import Span
from flowtracer.trace import Trace
from made import made_trace, sums
from packed import unpacked
from traces import make_trace

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e\ud800\x1b\0😀שלום"


def test_what_is_packed_comes_out():
    whole = np.array([3, 70_000, 5])
    floats = np.array([0.0, 1.0, 1e-30, 0.3, -0.7])
    falling = np.array([0.5, 0.25, 1e-9])
    header, arrays = unpacked(pack({"a": "\ud800é"}, {"w": whole, "f": floats, "g": falling}, frozenset({"w", "g"})))
    assert header["a"] == "\ud800é"
    assert arrays["w"].tolist() == whole.tolist()
    np.testing.assert_allclose(arrays["f"], floats, rtol=2**-13)
    np.testing.assert_allclose(arrays["g"], falling, rtol=2**-13)
    assert arrays["f"][0] == 0


def test_a_trace_is_packed_whole():
    trace = made_trace(*sums(4))
    header, arrays = unpacked(pack_trace(trace))
    assert header["text"] == trace.text
    assert header["summary"] == trace.summary()
    np.testing.assert_allclose(arrays["flow"], trace.flow, rtol=2**-12)
    np.testing.assert_array_equal(arrays["edge_target"] - arrays["edge_distance"], trace.edges.source)
    np.testing.assert_allclose(arrays["step_share"], [step.inflow for step in trace.steps()], rtol=2**-12)
    place = arrays["edge_head"].reshape(3, -1)[0, 0]
    layers, heads = trace.head_flow.shape
    assert [trace.layers[place // heads], place % heads] == trace.edge_heads[0, 0].tolist()
    assert place < layers * heads


def test_a_page_searches_its_paths_once_a_level(monkeypatch):
    trace = made_trace(*sums(4))
    searched = []
    paths = Trace.paths
    monkeypatch.setattr(
        Trace, "paths", lambda self, k, *, level: searched.append((k, level)) or paths(self, k, level=level)
    )
    html.trace_page(trace)
    assert searched == [(4, "steps"), (4, "words")]


def test_offsets_count_utf16_units():
    trace = make_trace(text="a😀b c😀d", offsets=np.array([[0, 1], [1, 2], [2, 5], [5, 7]]))
    starts, stops = utf16_offsets(trace)
    assert starts.tolist() == [0, 1, 3, 6]
    assert stops.tolist() == [1, 3, 6, 9]


class Elements(HTMLParser):
    """Scripts that run, and every attribute that could load or run something."""

    def __init__(self):
        super().__init__()
        self.scripts, self.attributes, self.policies, self.tags = [], [], [], []
        self.inside = False

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.inside = tag == "script" and "type" not in given
        self.attributes += given
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(given["content"])

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts.append(data)


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE * 5000, "", "</script><script>alert(1)</script>"])
def test_hostile_text_stays_inside_the_data(text, tmp_path):
    metadata = {"id": text, "gold": text, "is_correct": False, "note": text}
    trace = make_trace(text=text, answer_text=text, model=text, metadata=metadata)
    page = Elements()
    page.feed(trace.to_html(tmp_path / "t.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not {"src", "srcdoc", "style"} & set(page.attributes)
    assert not [name for name in page.attributes if name.startswith("on")]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert page.scripts == [html.bundle()]
    assert page.policies == [f"default-src 'none'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]


def test_the_first_screen_is_readable_without_the_script():
    page = html.trace_page(make_trace(metadata={"is_correct": False, "gold": "4", "reward": 0.5}))
    for expected in ("Wrong answer", "The answer 3 draws 100%", "expected <bdi>4</bdi>", "4 edges", "reward 0.5"):
        assert expected in page
    assert "Right answer" in html.trace_page(make_trace(metadata={"is_correct": True}))
    assert "Final answer" in html.trace_page(make_trace(metadata={}))


def test_a_reward_is_what_it_is_everywhere():
    assert "reward 0.25" in html.trace_page(make_trace(metadata={"score": 0.25}))  # as verl calls it
    assert "reward" not in html.trace_page(make_trace(metadata={"reward": 10**400})).partition("<script")[0]


def test_a_page_says_what_it_was_made_by_where_that_is_not_the_default():
    plain = html.trace_page(make_trace())
    assert "weighed by" not in plain
    assert "layered walks" not in plain
    layered = make_trace(graph="layered", ends="anywhere", capacity="<alti>")
    assert "<span>layered walks, weighed by &lt;alti&gt;</span>" in html.trace_page(layered)


def test_a_notebook_gets_an_iframe_that_holds_the_page():
    shown = make_trace()._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert 'sandbox="allow-scripts allow-downloads"' in shown
    assert "<script" not in re.sub(r'srcdoc="[^"]*"', "", shown)


def test_show_opens_a_file_in_the_browser(monkeypatch, tmp_path):
    opened_pages = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("webbrowser.open", opened_pages.append)
    make_trace().show()
    assert opened_pages[0].startswith("file://")
    assert opened_pages[0].endswith(".html")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="create it first"):
        make_trace().to_html(tmp_path / "no" / "t.html")


def test_a_trace_without_flow_in_its_reasoning_has_a_page(tmp_path):
    trace = make_trace(response=Span(start=3, stop=4), step_spans=(Span(start=0, stop=3), Span(start=3, stop=4)))
    assert "straight from the prompt" in trace.to_html(tmp_path / "t.html").read_text(encoding="utf-8")
