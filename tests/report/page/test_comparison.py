"""Pages of two traces and of a group, in a real browser."""

import pytest

from flowtracer.report.page.comparison import comparison_page, group_page
from flowtracer.report.page.html import write_page
from flowtracer.trace.compare import compare
from flowtracer.trace.group import compare_group
from made import made_trace, pieces, sums

HOSTILE = ["</script>", "<img src=x onerror=alert(1)>", "\u202e", "\ud800", " and", " so"]


def response(n, count=6, **metadata):
    """Responses that share a prompt and two sentences."""
    prompt, shared = sums(2)
    rest = sums(count, seed=n + 1)[1]
    return made_trace(prompt, [*shared[:2], *rest], answer=2, seed=n, metadata={"id": f"r{n}", **metadata})


@pytest.fixture(scope="module")
def comparison():
    return compare(response(0, is_correct=True), response(1, is_correct=False))


@pytest.fixture(scope="module")
def two(comparison, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("compare") / "two.html", comparison_page(comparison))


@pytest.fixture(scope="module")
def group():
    return compare_group([response(n, count=4 + n, is_correct=n < 2, reward=float(n < 2)) for n in range(4)])


@pytest.fixture(scope="module")
def many(group, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("group") / "many.html", group_page(group))


def test_two_traces_side_by_side(opened, two, comparison):
    page = opened(two)
    assert page.requests == [two.as_uri()]
    assert page.texts("h1") == [comparison.summary()]
    assert page.page.locator("#pictures .small-arcs").count() == 2
    fates = [page.page.locator("#fates section").nth(n).locator(".row").count() for n in range(3)]
    assert fates == [len(comparison.hubs_kept), len(comparison.hubs_lost), len(comparison.hubs_new)]
    for side, name in enumerate("ab"):
        steps = [getattr(pair, name) for pair in comparison.steps]
        expected = [str(step) for step in steps if step is not None]
        assert page.texts(f"#sides .step.side-{side} .gutter") == expected


def test_the_texts_are_whole_and_part_where_the_traces_do(opened, two, comparison):
    page = opened(two)
    words = "(selector) => [...document.querySelectorAll(selector)].map((span) => span.textContent).join('')"
    shared = page.page.evaluate(words, ".shared [data-t]").replace("\u21b5", "")
    for side, trace in enumerate((comparison.a, comparison.b)):
        rest = page.page.evaluate(words, f".side-{side} [data-t]").replace("\u21b5", "")
        assert shared + rest == trace.text
        parting = page.page.locator(f".side-{side} .parting")
        assert parting.get_attribute("data-t") == str(comparison.divergence.token)
    coloured = page.page.locator(".shared :is(.a1, .a2, .a3, .b1, .b2, .b3)")
    assert coloured.count() > 0


def test_a_hub_is_shown_where_it_stands(opened, two, comparison):
    page = opened(two)
    page.page.locator("#fates section").nth(2).locator(".row").first.focus()
    page.page.keyboard.press("Enter")
    found = page.page.locator(".focus")
    assert found.get_attribute("data-t") == str(comparison.hubs_new[0].token)
    assert found.is_visible()


def test_a_group_as_small_multiples(opened, many, group):
    page = opened(many)
    assert page.requests == [many.as_uri()]
    assert page.texts("h1") == [group.summary()]
    assert page.page.locator(".multiple").count() == 4
    assert page.texts(".multiple .facts") == [trace.summary() for trace in group.traces]
    hub = group.hubs[0]
    page.page.locator(".hub-row").first.hover()
    assert page.page.locator(".multiple:not(.dim)").count() == len(hub.members)
    assert page.page.locator(".hub-row").first.locator(".has").count() == len(hub.members)


def test_a_response_of_a_group_opens_its_text(opened, many, group):
    page = opened(many)
    page.page.locator(".multiple").nth(2).focus()
    page.page.keyboard.press("Enter")
    words = "[...document.querySelectorAll('#chosen [data-t]')].map((span) => span.textContent).join('')"
    assert page.page.evaluate(words).replace("\u21b5", "") == group.traces[2].text
    page.page.keyboard.press("Escape")
    assert page.page.locator("#chosen").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened, two, many, scheme):
    for file in (two, many):
        page = opened(file, color_scheme=scheme)
        before = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.page.locator("#theme").click()
        assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_hostile_tokens_are_text(opened, tmp_path):
    known = {"id": HOSTILE[1]}
    a, b = (made_trace(HOSTILE, [HOSTILE, pieces(" it is "), [*HOSTILE[n:], " 7"]], metadata=known) for n in (0, 1))
    for name, content in (
        ("two", comparison_page(compare(a, b))),
        ("many", group_page(compare_group([a, b, a]))),
    ):
        page = opened(write_page(tmp_path / f"{name}.html", content))
        assert page.page.locator("img").count() == 0
        assert "<img src=x onerror=alert(1)>" in page.page.locator("body").inner_text()
