"""An index over many traces: its files, and the page in a real browser, from the disk."""

import dataclasses
import json

import pytest

from flowtracer.errors import InputError
from flowtracer.report.page import site as site_module
from flowtracer.report.page.site import read_skipped, write_site, write_table_index
from flowtracer.trace.rollout_table import COLUMNS
from flowtracer.trace.trace import Skipped
from made import made_trace, sums


@pytest.fixture(scope="module")
def traces():
    graded = [True, False, True, None]
    return [
        made_trace(
            *sums(3 + 2 * n, seed=n),
            seed=n,
            metadata={"id": f"r{n}", "reward": 0.5 * n, **({} if known is None else {"is_correct": known})},
        )
        for n, known in enumerate(graded)
    ]


@pytest.fixture(scope="module")
def site(traces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    files = [trace.save(folder / f"t{n}.safetensors") for n, trace in enumerate(traces)]
    skipped = [Skipped(id="lost", reason="no_answer", message="expected an answer, got none")]
    return write_site(files, folder, skipped, title="</title><script>alert(1)</script>")


def names(page):
    return page.texts("td.col-name")


def test_every_trace_has_its_page(site, traces):
    assert sorted(file.name for file in (site.parent / "pages").iterdir()) == [f"t{n}.html" for n in range(4)]
    assert traces[2].summary() in (site.parent / "pages" / "t2.html").read_text(encoding="utf-8")


def test_traces_of_the_same_name_do_not_overwrite_each_other(tmp_path, traces):
    files = []
    for n in (0, 1):
        (tmp_path / str(n)).mkdir()
        files.append(traces[n].save(tmp_path / str(n) / "t.safetensors"))
    write_site(files, tmp_path / "out")
    assert len(list((tmp_path / "out" / "pages").iterdir())) == 2


def test_pages_are_written_anew_only_where_their_trace_is_another(tmp_path, traces):
    out = tmp_path / "out"
    files = [traces[n].save(tmp_path / f"t{n}.safetensors") for n in range(3)]
    index = write_site(files, out).read_bytes()
    assert write_site(files, tmp_path / "again").read_bytes() == index

    def dates():
        return {file.name: file.stat().st_mtime_ns for file in (out / "pages").iterdir()}

    first = dates()
    assert write_site(files, out).read_bytes() == index
    assert dates() == first
    dataclasses.replace(traces[1], metadata={"id": "another"}).save(files[1])
    (out / "pages" / "t2.html").unlink()
    assert b"another" not in (out / "pages" / "t1.html").read_bytes()
    write_site(files, out)
    assert b"another" in (out / "pages" / "t1.html").read_bytes()
    assert {name for name, date in dates().items() if date == first[name]} == {"t0.html"}
    write_site(files[:1], out)
    assert dates().keys() == {"t0.html"}, "a page that is not in the index goes"


def test_pages_of_another_version_are_written_anew(tmp_path, traces, monkeypatch):
    file = traces[0].save(tmp_path / "t.safetensors")
    write_site([file], tmp_path)
    page = tmp_path / "pages" / "t.html"
    page.write_text("of an older version")
    write_site([file], tmp_path)
    assert page.read_text() == "of an older version"
    monkeypatch.setattr(site_module, "_makers", lambda: "a newer version")
    write_site([file], tmp_path)
    assert traces[0].summary() in page.read_text(encoding="utf-8")


def test_nothing_to_show_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one trace"):
        write_site([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can be written"):
        write_site([], tmp_path / "file" / "out", [Skipped(id="a", reason="b", message="c")])


def test_what_was_skipped_is_read(tmp_path):
    assert read_skipped(tmp_path / "none.jsonl") == []
    (tmp_path / "skipped.jsonl").write_text(json.dumps({"id": "a", "reason": "b", "message": "c"}) + "\n")
    assert read_skipped(tmp_path / "skipped.jsonl") == [Skipped(id="a", reason="b", message="c")]


def test_sorting(opened, site):
    page = opened(site)
    assert names(page) == ["r0", "r1", "r2", "r3", "lost"]
    page.page.locator("[data-sort=tokens]").click()
    assert names(page) == ["r3", "r2", "r1", "r0", "lost"]
    page.page.locator("[data-sort=tokens]").press("Enter")
    assert names(page) == ["r0", "r1", "r2", "r3", "lost"], "what has no value comes last whichever way"
    assert page.page.locator("th.col-tokens").get_attribute("aria-sort") == "ascending"
    for key in ("reward", "concentration", "hubs", "verdict", "answer", "name", "found"):
        page.page.locator(f"[data-sort={key}]").click()
        assert names(page)[-1] == "lost" or key == "name"
        assert f"sort={key}" in page.fragment


def test_filters_and_find(opened, site):
    page = opened(site)
    for name, expected in {"right": ["r0", "r2"], "wrong": ["r1"], "ungraded": ["r3"], "no trace": ["lost"]}.items():
        page.page.locator(f"[data-filter='{name}']").click()
        assert names(page) == expected
    page.page.locator("[data-filter=all]").click()
    page.page.keyboard.press("/")
    page.page.keyboard.type("R1")
    assert names(page) == ["r1"]
    assert page.texts("#shown") == ["1 of 5 rollouts"]


def test_what_traces_were_made_by_is_a_column_where_one_is_not_the_default(opened, site, tmp_path, traces):
    assert opened(site).page.locator(".col-made").count() == 0
    made = [traces[0], dataclasses.replace(traces[1], capacity="value")]
    files = [trace.save(tmp_path / f"t{n}.safetensors") for n, trace in enumerate(made)]
    page = opened(write_site(files, tmp_path))
    assert page.texts("td.col-made") == ["", "weighed by value"]
    page.page.locator("#find").fill("by value")
    assert names(page) == ["r1"]


def test_a_trace_opens_in_place_and_only_then_is_read(opened, site, traces):
    page = opened(site)
    assert page.requests == [site.as_uri()]
    page.page.locator("button.open", has_text="r2").click()
    frame = page.page.frame_locator("#reader iframe")
    frame.locator("h1").wait_for()
    assert frame.locator("h1").inner_text() == traces[2].summary()
    assert page.requests[1:] == [(site.parent / "pages" / "t2.html").as_uri()]
    page.page.locator("#list").click(position={"x": 5, "y": 5})
    page.page.keyboard.press("ArrowDown")
    frame.locator("h1", has_text=traces[3].summary()).wait_for()
    page.page.keyboard.press("Escape")
    assert page.page.locator("#reader iframe").count() == 0
    page.page.keyboard.press("ArrowDown")
    frame.locator("h1", has_text=traces[0].summary()).wait_for()
    page.page.locator("#close").click()
    assert page.page.locator("#reader").is_hidden()


def test_a_link_reopens_the_view_and_cannot_point_elsewhere(opened, site, traces):
    page = opened(site, "#sort=tokens&falling=1&show=right&open=pages%2Ft0.html&theme=dark")
    assert names(page) == ["r2", "r0"]
    frame = page.page.frame_locator("#reader iframe")
    assert frame.locator("h1").inner_text() == traces[0].summary()
    assert frame.locator("html").get_attribute("data-theme") == "dark"
    strange = opened(site, "#open=javascript%3Aalert(1)&sort=nothing&show=__proto__")
    assert strange.page.locator("#reader iframe").count() == 0
    assert names(strange) == ["r0", "r1", "r2", "r3", "lost"]


LONG = 3_000


@pytest.fixture(scope="module")
def long_index(tmp_path_factory):
    """The index over a table of rollouts, of which every tenth has no trace, and none a page."""

    def row(n):
        gone = {"reason": "no_answer", "message": "expected an answer, got none"} if n % 10 == 9 else {}
        known = {
            "answer": str(n % 7),
            "answer_rule": "boxed",
            "correct": n % 2 == 0,
            "reward": n / LONG,
            "tokens": n + 1,
        }
        known |= {"concentration": 0.5, "hub_share": 0.25, "hubs": ["3", "plus"] if n % 3 else []}
        return {**dict.fromkeys(COLUMNS), "id": f"r{n}", **(gone or known)}

    return write_table_index(map(row, range(LONG)), tmp_path_factory.mktemp("long"), title="many")


def test_of_a_long_table_only_what_is_in_view_is_in_the_document(opened, long_index):
    page = opened(long_index)
    assert page.texts("#shown") == [f"{LONG:,} rollouts"]
    lines = page.page.locator("tbody tr:not(.gap)")
    assert lines.count() < 200
    assert names(page)[:2] == ["r0", "r1"]
    assert page.page.locator("table").get_attribute("aria-rowcount") == str(LONG + 1)
    widths = "[...document.querySelectorAll('th')].map((head) => head.offsetWidth)"
    before = page.page.evaluate(widths)
    lines_in = "[...document.querySelectorAll('tbody tr:not(.gap)')]"
    heights = page.page.evaluate(f"{lines_in}.map((line) => line.offsetHeight)")
    assert len(set(heights)) == 1, "a line's place is told by its height"
    for share in (0.37, 1, 0):
        page.page.locator("#list").evaluate("(list, share) => (list.scrollTop = share * list.scrollHeight)", share)
        page.settle()
        first = int(names(page)[0][1:])
        seen = page.page.evaluate(
            "(() => { const {left, top, height} = document.querySelector('#list').getBoundingClientRect();"
            " return document.elementFromPoint(left + 60, top + height / 2).closest('tr').ariaRowIndex })()"
        )
        assert page.page.locator("tbody tr:not(.gap)").first.get_attribute("aria-rowindex") == str(first + 2)
        assert abs(int(seen) - share * LONG) < 60
        assert page.page.evaluate(widths) == before
    page.page.locator("[data-filter='no trace']").click()
    assert page.texts("#shown") == [f"{LONG // 10:,} of {LONG:,} rollouts"]
    assert names(page)[:2] == ["r9", "r19"]
    page.page.locator("[data-filter=all]").click()
    page.page.locator("[data-sort=tokens]").click()
    assert names(page)[0] == f"r{LONG - 2}"
    page.page.keyboard.press("/")
    page.page.keyboard.type("r100")
    assert names(page)[:3] == ["r1008", "r1007", "r1006"]


def test_an_index_says_where_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(site_module, "MOST_ROWS", 3)
    rows = [{**dict.fromkeys(COLUMNS), "id": str(n), "reason": "no_answer", "message": ""} for n in range(4)]
    assert "the first 3" in write_table_index(rows, tmp_path).read_text(encoding="utf-8")
    assert "the first" not in write_table_index(rows[:3], tmp_path).read_text(encoding="utf-8").split("<script")[0]
