"""The page of one trace in a real browser: everything by mouse and by keyboard."""

import dataclasses
import io
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from flowtracer.text.span import Span
from flowtracer.trace.backbone import Edges
from made import made_trace, pieces, sums
from traces import make_trace

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'><b>bold</b>",
    "\u202eevil\u202c",
    "\x00\x07\x1b[31m",
    "\ud800",
    "😀",
    " שלום עולם",
    "{{ 7 * 7 }}",
    "]]>--><!--",
    "&lt;&#60;",
]


@pytest.fixture(scope="module")
def trace():
    prompt, sentences = sums(24)
    return made_trace(prompt, sentences, answer=2, metadata={"id": "sums", "is_correct": True, "reward": 1.0})


@pytest.fixture(scope="module")
def file(trace, tmp_path_factory):
    return trace.to_html(tmp_path_factory.mktemp("pages") / "trace.html")


def test_it_renders_offline_and_asks_for_nothing(opened, file, trace):
    page = opened(file)
    assert page.requests == [file.as_uri()]
    assert page.texts("h1") == [trace.summary()]
    assert page.texts(".verdict bdi") == [trace.answer_text]
    assert len(page.texts("#hubs .row")) == 12
    ways = [*trace.paths(4, level="steps"), *trace.paths(4, level="words")]
    assert len(page.texts("#paths .row")) == len(ways)
    assert page.texts("#paths .level") == ["through sentences", "through words"]
    named = [bdi for path in ways for bdi in path.to_dict()["units"]]
    shown = page.page.locator("#paths bdi").evaluate_all("all => all.map((bdi) => bdi.firstChild.textContent)")
    assert shown == [unit["label"] for unit in named]
    assert len(page.texts("#heads .row")) == 8
    assert len(page.texts("#layers .column")) == 4
    assert page.page.locator(".badge").first.get_attribute("title") == "hidden: not measured"


def test_a_hub_shows_what_its_place_alone_would_carry(opened, file, trace, tmp_path):
    assert opened(file).page.locator("#hubs .expected").count() == 0, "a trace that does not know it"
    known = dataclasses.replace(trace, expected_flow=trace.flow / 4)
    page = opened(known.to_html(tmp_path / "known.html"))
    assert page.page.locator("#hubs .expected").count() == 12
    hub = known.hubs(1)[0]
    title = page.page.locator("#hubs .row").first.get_attribute("title")
    assert title.startswith("its place alone would carry ")
    assert float(title.split()[-2]) == pytest.approx(100 * hub.expected, rel=0.06)
    assert page.page.locator("#ribbon .hub").count() == sum(len(h.unit.span) for h in known.hubs(12))


def test_a_measured_hub_says_what_hiding_it_does(opened, trace, tmp_path):
    first, second = (hub.token for hub in trace.hubs(2))
    measured = dataclasses.replace(trace, effects={first: -1.5, second: 0.25})
    page = opened(measured.to_html(tmp_path / "trace.html"))
    titles = [badge.get_attribute("title") for badge in page.page.locator(".badge").all()]
    assert titles[:3] == ["hidden: log p(answer) \u22121.50", "hidden: log p(answer) +0.25", "hidden: not measured"]
    lost = page.page.locator(".badge").first.evaluate("badge => badge.style.getPropertyValue('--lost')")
    assert lost == "78%", "1 - exp(-1.5) of the answer's probability"


def test_the_text_is_all_there(opened, file, trace):
    page = opened(file, "#open=1")
    pieces_shown = page.page.evaluate("[...document.querySelectorAll('[data-t]')].map((span) => span.textContent)")
    assert "".join(pieces_shown).replace("\u21b5", "") == trace.text


def test_canvases_are_painted(opened, file):
    page = opened(file)
    page.settle()
    for name in ("#minimap-base", "#arcs-base"):
        colours = page.page.evaluate(
            "(name) => { const c = document.querySelector(name);"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const seen = new Set();"
            "for (let i = 0; i < d.length; i += 4) seen.add(d[i] + ',' + d[i+1] + ',' + d[i+2]);"
            "return seen.size; }",
            name,
        )
        assert colours > 20


def test_pointing_shows_neighbours_and_leaving_lets_go(opened, file, trace):
    page = opened(file)
    hub = trace.hubs(1)[0].token
    span = page.page.locator(f"[data-t='{hub}']")
    span.hover()
    assert f"token {hub}" in page.texts("#selection")[0]
    strongest = int(trace.edges.source[trace.edges.target == hub][0])
    assert "in" in page.page.locator(f"[data-t='{strongest}']").get_attribute("class").split()
    page.page.mouse.move(1, 1)
    assert "Point at a token" in page.texts("#selection")[0]


def test_click_pins_and_escape_and_an_empty_click_clear(opened, file, trace):
    page = opened(file)
    hub = trace.hubs(1)[0].token
    page.page.locator(f"[data-t='{hub}']").click()
    assert f"t={hub}" in page.fragment
    page.page.mouse.move(1, 1)
    assert "pinned" in page.texts("#selection")[0]
    page.page.keyboard.press("Escape")
    assert "t=" not in page.fragment
    page.page.locator(f"[data-t='{hub}']").click()
    box = page.page.locator("#ribbon").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] - 30, box["y"] + 8)
    assert "t=" not in page.fragment


def test_hovering_and_clicking_the_arcs(opened, file):
    page = opened(file)
    box = page.page.locator("#arcs").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "token" in page.texts("#selection")[0]
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "t=" in page.fragment
    assert "focused" in page.page.locator("#arcs").get_attribute("class")


def view(page):
    """Tokens in view, from the URL."""
    given = dict(part.split("=") for part in page.fragment.lstrip("#").split("&"))
    return tuple(map(int, given["w"].split("-"))) if "w" in given else None


def test_zoom_and_pan_by_mouse(opened, file):
    page = opened(file)
    box = page.page.locator("#arcs").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.move(*middle)
    for _ in range(6):
        page.page.mouse.wheel(0, -60)
    narrow = view(page)
    assert narrow is not None
    page.page.mouse.down()
    page.page.mouse.move(middle[0] - 80, middle[1], steps=4)
    page.page.mouse.up()
    assert view(page)[0] > narrow[0]
    before = view(page)
    page.page.mouse.dblclick(*middle)
    assert view(page)[1] - view(page)[0] < before[1] - before[0]
    for _ in range(30):
        page.page.mouse.wheel(0, 60)
    assert view(page) is None


def test_zoom_and_pan_by_keyboard(opened, file):
    page = opened(file)
    for _ in range(3):
        page.page.keyboard.press("+")
    near = view(page)
    assert near is not None
    page.page.keyboard.press("Shift+ArrowRight")
    assert view(page)[0] > near[0]
    page.page.keyboard.press("Shift+ArrowLeft")
    assert view(page)[0] == near[0]
    page.page.keyboard.press("-")
    assert view(page)[1] - view(page)[0] > near[1] - near[0]
    page.page.keyboard.press("0")
    assert view(page) is None


def test_the_brush(opened, file, trace):
    page = opened(file)
    box = page.page.locator("#minimap").bounding_box()

    def drag(start, stop):
        page.page.mouse.move(box["x"] + start * box["width"], box["y"] + 30)
        page.page.mouse.down()
        page.page.mouse.move(box["x"] + stop * box["width"], box["y"] + 30, steps=5)
        page.page.mouse.up()

    drag(0.25, 0.5)
    first, last = view(page)
    assert first == pytest.approx(0.25 * len(trace), abs=3)
    assert last == pytest.approx(0.5 * len(trace), abs=3)
    drag(0.375, 0.625)  # from within the brush: it moves
    assert view(page)[0] == pytest.approx(0.5 * len(trace), abs=3)
    drag(0.75, 0.9)  # its right edge
    assert view(page)[1] == pytest.approx(0.9 * len(trace), abs=3)
    page.page.locator("#minimap").dblclick()
    assert view(page) is None


def test_the_slider_reads_the_share_that_is_kept(opened, file, trace):
    page = opened(file)
    page.page.locator("#share").focus()
    shown = page.texts("#share-value")[0]
    page.page.keyboard.press("ArrowRight")
    assert page.texts("#share-value")[0] != shown
    share = int(page.fragment.split("s=")[1].split("&")[0])
    edges = int(page.texts("#share-value")[0].split("\u00b7")[1].split()[0].replace(",", ""))
    expected = len(trace.backbone(share / 100).edges)
    assert edges == pytest.approx(expected, rel=0.01)
    page.page.locator("#share").fill("10")
    assert "s=10" in page.fragment


def test_arrow_keys_walk_the_backbone_and_the_hubs(opened, file, trace):
    page = opened(file)
    hubs = [hub.token for hub in trace.hubs(12)]
    page.page.keyboard.press("ArrowDown")
    assert f"t={hubs[0]}&" in page.fragment
    page.page.keyboard.press("ArrowDown")
    assert f"t={hubs[1]}&" in page.fragment
    page.page.keyboard.press("ArrowUp")
    assert f"t={hubs[0]}&" in page.fragment
    into = int(trace.edges.source[trace.edges.target == hubs[0]][0])
    page.page.keyboard.press("ArrowLeft")
    assert f"t={into}&" in page.fragment
    out = int(trace.edges.target[trace.edges.source == into][0])
    page.page.keyboard.press("ArrowRight")
    assert f"t={out}&" in page.fragment


def test_rows_of_hubs_and_paths_are_buttons(opened, file, trace):
    page = opened(file, reduced_motion="reduce")
    page.page.locator("#hubs .row").nth(1).click()
    assert f"t={trace.hubs(2)[1].token}" in page.fragment
    page.page.locator("#paths .row").first.focus()
    page.page.keyboard.press("Enter")
    assert "p=0" in page.fragment
    assert page.page.locator("#ribbon .on-path").count() == len(trace.paths(1)[0].tokens)
    page.page.keyboard.press("p")
    assert "p=1" in page.fragment
    page.page.keyboard.press("Escape")
    assert "p=" not in page.fragment


def test_a_replayed_path_walks_along_the_text(opened, file, trace):
    page = opened(file)
    page.page.locator("#paths .row").first.click()
    first, *_, last = trace.paths(1)[0].tokens
    page.page.mouse.move(1, 1)
    page.page.locator(f"[data-t='{first}'].focus").wait_for()
    page.page.locator(f"[data-t='{last}'].focus").wait_for()
    assert "p=0" in page.fragment


def test_find(opened, file, trace):
    page = opened(file)
    page.page.keyboard.press("/")
    page.page.keyboard.type("then")
    times = trace.text.lower().count("then")
    assert page.texts("#found") == [str(times)]
    assert page.page.locator("#ribbon .found").count() == times
    page.page.keyboard.press("Enter")
    assert page.texts("#found") == [f"1/{times}"]
    assert "q=then" in page.fragment
    assert "t=" in page.fragment
    page.page.keyboard.press("Shift+Enter")
    assert page.texts("#found") == [f"{times}/{times}"]
    page.page.keyboard.press("Escape")
    assert page.page.locator("#ribbon .found").count() == 0


def test_quiet_sentences_are_folded(opened, file):
    page = opened(file)
    folds = page.page.locator(".fold")
    assert folds.count() > 0
    hidden = page.page.locator(".folded").first
    assert not hidden.is_visible()
    folds.first.click()
    assert hidden.is_visible()
    assert folds.first.get_attribute("aria-expanded") == "true"
    folds.first.press("Enter")
    assert not hidden.is_visible()
    page.page.locator("#fold").click()
    assert hidden.is_visible()
    assert "open=1" in page.fragment
    page.page.keyboard.press("f")
    assert not hidden.is_visible()


def test_a_link_opens_the_same_picture(opened, file, trace):
    hub = trace.hubs(1)[0].token
    fragment = f"#t={hub}&w=10-200&s=20&q=then&theme=dark&open=1"
    page = opened(file, fragment)
    assert page.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert "pinned" in page.texts("#selection")[0]
    assert page.page.locator("#find").input_value() == "then"
    page.page.keyboard.press("Shift+ArrowRight")
    assert {"s=20", "q=then", "theme=dark", "open=1", f"t={hub}"} <= set(page.fragment.lstrip("#").split("&"))


@pytest.mark.parametrize("fragment", ["#t=99999999&p=77&w=9-3&s=900&theme=x", "#t=-1&w=a-b&s=", "#%00=%ff&q=%E0%A4%A"])
def test_a_broken_link_opens_the_page_all_the_same(opened, file, fragment):
    page = opened(file, fragment)
    assert "Point at a token" in page.texts("#selection")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened, file, scheme):
    page = opened(file, color_scheme=scheme)
    background = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    page.page.locator("#theme").click()
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") != background
    assert f"theme={'light' if scheme == 'dark' else 'dark'}" in page.fragment


def saved(page, button):
    with page.page.expect_download() as waiting:
        page.page.locator(button).click()
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def test_exports_are_valid(opened, file, trace):
    page = opened(file)
    name, content = saved(page, "#export-svg")
    assert name == "flowtracer-sums.svg"
    figure = ElementTree.fromstring(content)  # noqa: S314 - our own
    assert figure.find("{http://www.w3.org/2000/svg}title").text == trace.summary()
    assert len(figure.findall(".//{http://www.w3.org/2000/svg}path")) > 3
    name, content = saved(page, "#export-png")
    assert name == "flowtracer-sums.png"
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (2400, 788)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50
    name, content = saved(page, "#export-json")
    given = json.loads(content)
    assert given["tokens"] == list(trace.tokens)
    assert given["edgeFlow"] == pytest.approx(trace.edges.flow.tolist(), rel=1e-3)


def test_hostile_tokens_are_text(opened, tmp_path):
    trace = made_trace(HOSTILE, [HOSTILE, [*pieces(" so it is "), *HOSTILE, "\n"], ["x" * 1_000_000, " done"]])
    page = opened(trace.to_html(tmp_path / "hostile.html"), "#open=1")
    shown = page.page.locator("#ribbon").inner_text()
    for expected in (
        HOSTILE[0],
        HOSTILE[1],
        "\u2039U+202E\u203aevil",
        "\u2400\u2407\u241b[31m",
        "\ufffd",
        "{{ 7 * 7 }}",
    ):
        assert expected in shown
    assert "(1,000,000 characters)" in shown
    assert page.page.locator("#ribbon img, #ribbon b:not(.gutter b), #ribbon script").count() == 0
    for token in range(len(HOSTILE)):
        page.page.locator(f"[data-t='{token}']").hover()
    svg = saved(page, "#export-svg")[1]
    ElementTree.fromstring(svg)  # noqa: S314
    assert len(json.loads(saved(page, "#export-json")[1])["tokens"]) == len(trace)


def test_far_away_arcs_join_sentences_and_near_ones_tokens(opened, tmp_path):
    trace = made_trace(*sums(130), max_edges=20_000)
    assert len(trace) > 1200
    page = opened(trace.to_html(tmp_path / "long.html"))
    page.settle()
    assert "sentence arcs" in page.texts("#arcs-note")[0]
    for _ in range(2):
        page.page.keyboard.press("+")
    page.settle()
    assert "sentence" not in page.texts("#arcs-note")[0]


def test_several_traces_in_one_notebook(opened, trace, tmp_path):
    notebook = tmp_path / "notebook.html"
    frames = trace._repr_html_() + made_trace(*sums(3, seed=1))._repr_html_()
    notebook.write_text(
        f"<!doctype html><html data-ready><meta charset=utf-8><body>{frames}</body></html>", encoding="utf-8"
    )
    page = opened(notebook)
    for frame in page.page.frames[1:]:
        frame.wait_for_selector("html[data-ready]", state="attached")
    first, second = page.page.frames[1:]
    first.locator("#hubs .row").first.click()
    assert "pinned" in first.locator("#selection").inner_text()
    assert "pinned" not in second.locator("#selection").inner_text()


@pytest.mark.parametrize("text", ["q: 1 2 = 3", "", "\n\n\n\n", "é" * 9, "a😀b😀"])
def test_the_smallest_traces_have_a_page(opened, tmp_path, text):
    page = opened(make_trace(text=text).to_html(tmp_path / "tiny.html"))
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "+", "-", "p", "f", "Escape"):
        page.page.keyboard.press(key)
    assert saved(page, "#export-svg")[1].startswith(b"<svg")


def test_tokens_after_the_answer_and_tokens_that_share_a_character(opened, tmp_path):
    trace = make_trace(
        text="ab😀 done",
        offsets=np.array([[0, 1], [1, 3], [1, 3], [3, 8]]),
        answer=Span(start=1, stop=3),
        sink=Span(start=1, stop=3),
        flow=np.array([1.0, 0.5, 0.5, 0.0]),
        edges=Edges(source=np.array([0, 0]), target=np.array([1, 2]), flow=np.full(2, 0.5), complete=True),
        edge_heads=np.zeros((2, 0, 2), dtype=np.int16),
        edge_head_shares=np.zeros((2, 0), dtype=np.float32),
        head_flow=np.zeros((2, 0)),
    )
    page = opened(trace.to_html(tmp_path / "shared.html"), "#t=2")
    assert "".join(page.texts("[data-t]")) == "ab😀 done"
    assert page.page.locator("[data-t='1'].focus").count() == 1, "a token without text of its own is where it is spelt"
    assert page.page.locator("#heads-section").is_hidden()
