"""Figures: the numbers behind them, and that any trace can be drawn, whatever its text."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flowtracer.errors import InputError
from flowtracer.report.figures.categories import CATEGORIES
from flowtracer.report.figures.kinds import category_shares
from flowtracer.report.figures.plots import FIGURES, draw, drawable, write_plots
from flowtracer.report.figures.positions import _flow_by_place, _spread
from flowtracer.report.figures.steps import _flow_between_tenths
from flowtracer.report.figures.style import groups, plain
from flowtracer.trace.measures import reasoning
from synthetic import RIGHT, WRONG, synthetic_trace

HOSTILE = (
    "\x1b[2J",
    "\r",
    "\u202e",
    "\ud800",
    "$x^2$",
    "\\frac{",
    "</text><script>",
    "中",
    "🙂",
    "é" * 300,
    "&",
    "\n",
    "7",
)
LONG = [word for n in range(60) for word in (" x", " =", f" {n}", ".", "\n")]


@pytest.fixture(scope="module")
def many():
    return [
        synthetic_trace(RIGHT, metadata={"is_correct": True}),
        synthetic_trace(WRONG, metadata={"is_correct": False}),
        synthetic_trace((" so", *RIGHT), metadata={"is_correct": True}),
    ]


CASES = {
    "one": lambda: [synthetic_trace()],
    "hostile": lambda: [synthetic_trace(HOSTILE)],
    "long": lambda: [synthetic_trace(LONG)],
    "the answer alone": lambda: [synthetic_trace(("7",))],
    "no prompt but one token": lambda: [synthetic_trace(("7",), prompt=("q",))],
    "many": lambda: [synthetic_trace(response) for response in (RIGHT, WRONG, HOSTILE)],
    "graded": lambda: [synthetic_trace(r, metadata={"is_correct": r is RIGHT}) for r in (RIGHT, WRONG, RIGHT)],
    "many without reasoning": lambda: [synthetic_trace(("7",)), synthetic_trace(("8",))],
}


@pytest.mark.parametrize("case", CASES)
def test_any_trace_can_be_drawn(case, tmp_path):
    written = write_plots(CASES[case](), tmp_path, formats=("svg",))
    assert [path.stem for path in written] == list(FIGURES)
    for path in written:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - our own file
        assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_text_stays_text_and_formats_are_what_they_say(tmp_path):
    write_plots([synthetic_trace(HOSTILE)], tmp_path)
    svg = (tmp_path / "steps.svg").read_text(encoding="utf-8")
    words = [text for node in ElementTree.fromstring(svg).iter() if (text := node.text)]  # noqa: S314
    assert any("$x^2$" in text and "\\frac{" in text for text in words), "dollars are no formula"
    for name in FIGURES:
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert len(Image.open(tmp_path / f"{name}.png").convert("L").getcolors(256)) > 10


def test_the_same_figure_gives_the_same_bytes(many, tmp_path):
    for run in ("a", "b"):
        write_plots(many, tmp_path / run, formats=("svg", "pdf"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_callers_settings_come_back(many):
    mpl.rcParams["font.size"] = 31
    draw("layers", many)
    assert mpl.rcParams["font.size"] == 31
    mpl.rcdefaults()


def test_text_of_a_model_is_one_short_line():
    assert plain("a\n\x1b b\u202e") == "a · b·"
    assert plain("🙂") == "▯"
    assert plain("x" * 50, 10) == "x" * 9 + "…"


def test_groups_stand_apart_only_where_both_exist(many):
    assert {name: len(members) for name, members in groups(many).items()} == {"right": 2, "wrong": 1}
    assert list(groups([many[0], synthetic_trace()])) == ["all"]


@given(bins=st.integers(1, 60))
def test_flow_by_place_keeps_the_mean(bins):
    trace = synthetic_trace()
    places = _flow_by_place(trace, bins)
    assert places.mean() == pytest.approx(1)
    if bins == reasoning(trace).sum():
        flow = trace.flow[reasoning(trace)]
        np.testing.assert_allclose(places, flow / flow.mean())


def test_categories_are_shares():
    shares = category_shares([synthetic_trace(), synthetic_trace(WRONG)])
    for name, share in shares.items():
        assert share.sum() == pytest.approx(1), name
    of_one = dict(zip(CATEGORIES, category_shares([synthetic_trace()])["tokens"], strict=True))
    counts = {"punctuation, newlines": 6, "numbers": 4, "operators": 3, "variables": 1, "words": 2}
    assert of_one == pytest.approx({name: count / 16 for name, count in counts.items()})


def test_tenths_hold_all_the_flow():
    trace = synthetic_trace()
    matrix = _flow_between_tenths(trace)
    assert matrix.sum() == pytest.approx(trace.edges.flow.sum())
    assert matrix[:, -1].sum() == pytest.approx(1), "a unit arrives at the answer"
    assert not matrix[-1].any()
    assert not np.tril(matrix, -1).any()


@given(
    wanted=st.lists(st.floats(0, 1), min_size=1, max_size=6).map(sorted),
    widths=st.lists(st.floats(0.01, 0.16), min_size=6, max_size=6),
)
def test_names_do_not_cover_each_other(wanted, widths):
    widths = widths[: len(wanted)]
    places = _spread(wanted, widths)
    edges = [(place - width / 2, place + width / 2) for place, width in zip(places, widths, strict=True)]
    assert edges[0][0] >= -1e-9
    assert edges[-1][1] <= 1 + 1e-9
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(edges))


def test_traces_without_heads_have_no_layers(tmp_path):
    bare = synthetic_trace(head_flow=np.zeros((2, 0)))
    assert drawable([bare]) == [name for name in FIGURES if name != "layers"]
    assert not [path for path in write_plots([bare], tmp_path, formats=("svg",)) if path.stem == "layers"]
    with pytest.raises(InputError, match="heads of the same layers"):
        draw("layers", [bare])
    with pytest.raises(InputError, match="heads of the same layers"):
        draw("layers", [synthetic_trace(), synthetic_trace(layers=(1, 3))])


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match="a figure among"):
        draw("pie", [synthetic_trace()])
    with pytest.raises(InputError, match="at least one trace"):
        draw("steps", [])
    with pytest.raises(InputError, match="formats among"):
        write_plots([synthetic_trace()], tmp_path, formats=("gif",))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder that can be written"):
        write_plots([synthetic_trace()], tmp_path / "file" / "out")


def test_without_matplotlib_the_message_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from flowtracer.errors import MissingDependencyError\n"
        "try:\n    import flowtracer.report.figures.plots\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "flowtracer[report]"' in done.stdout
