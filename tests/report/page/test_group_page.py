"""The page of a group in a real browser: the tree, the steps that are shared, and the text that they open."""

import pytest

from flowtracer.report.page.comparison import group_page
from flowtracer.report.page.html import write_page
from flowtracer.trace.group import compare_group
from made import made_trace, pieces, sums

HOSTILE = ["</script>", "<img src=x onerror=alert(1)>", "\u202e", "\ud800", " 7", ".\n"]
WAYS = {"r0": (0, 1), "r1": (0, 1), "r2": (0, 2), "r3": (3, 1), "r4": (0, 1)}
"""Which lines each response says, of those of one sum."""


def respond(name, **metadata):
    prompt, lines = sums(5)
    said = [lines[place] for place in WAYS[name]]
    return made_trace(prompt, [*said, pieces(f"So the answer is {name[1:]}")], metadata={"id": name, **metadata})


@pytest.fixture(scope="module")
def group():
    return compare_group([respond(name, is_correct=name in ("r0", "r1", "r4")) for name in WAYS])


@pytest.fixture(scope="module")
def file(group, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("group") / "group.html", group_page(group))


def members_of(page, selector):
    """Cards that are not dim."""
    return [index for index, dim in enumerate(page.page.evaluate(selector)) if not dim]


DIM = "[...document.querySelectorAll('.multiple')].map((card) => card.classList.contains('dim'))"


def test_the_tree_stands_as_it_was_found(opened, file, group):
    page = opened(file)
    boxes = page.page.locator(".part")
    assert boxes.count() == len(group.tree)
    for place, branch in enumerate(group.tree):
        label = boxes.nth(place).get_attribute("aria-label")
        assert all(f"{number} {side}" in label for side in ("right", "wrong") if (number := getattr(branch, side)))
        assert branch.answer is None or label.endswith(f"answer {branch.answer}")
        for text in branch.texts:
            assert text in boxes.nth(place).get_attribute("title")
    heights = [boxes.nth(place).bounding_box()["height"] for place in range(len(group.tree))]
    stripe = heights[0] / 5
    assert heights == pytest.approx([stripe * len(branch.members) for branch in group.tree])


def test_boxes_never_lie_on_each_other_and_bands_lead_to_each(opened, file, group):
    page = opened(file)
    boxes = [page.page.locator(".part").nth(place).bounding_box() for place in range(len(group.tree))]
    for one in boxes:
        for other in boxes:
            apart = one["x"] + one["width"] <= other["x"] or one["y"] + one["height"] <= other["y"]
            turned = other["x"] + other["width"] <= one["x"] or other["y"] + other["height"] <= one["y"]
            assert one is other or apart or turned
    bands = page.page.evaluate("[...document.querySelectorAll('.band')].map((band) => Number(band.dataset.branch))")
    sides = {place: bool(branch.right) + bool(branch.wrong) for place, branch in enumerate(group.tree) if place}
    assert {place: bands.count(place) for place in sides} == sides


def test_what_is_pointed_at_lights_its_responses(opened, file, group):
    page = opened(file)
    last = len(group.tree) - 1
    page.page.locator(".part").nth(last).hover()
    assert members_of(page, DIM) == list(group.tree[last].members)
    page.page.locator(".step-row").first.focus()
    assert members_of(page, DIM) == list(group.steps[0].members)
    page.page.mouse.move(0, 0)
    page.page.locator(".multiple").first.focus()
    lit = page.page.evaluate("[...document.querySelectorAll('.part:not(.dim)')].map((b) => Number(b.dataset.branch))")
    assert lit == [place for place, branch in enumerate(group.tree) if 0 in branch.members]


def test_a_box_opens_the_text_at_its_step_by_keyboard_alone(opened, file, group):
    page = opened(file)
    page.page.locator(".part").first.focus()
    page.page.keyboard.press("ArrowRight")
    widest = next(place for place, branch in enumerate(group.tree) if branch.parent == 0)
    assert page.page.evaluate("document.activeElement.dataset.branch") == str(widest)
    page.page.keyboard.press("Enter")
    branch = group.tree[widest]
    current = page.page.locator("#chosen .current")
    assert branch.texts[0] in " ".join(current.inner_text().replace("\u21b5", "").split())
    inside = "(row) => row.getBoundingClientRect().top >= 0 && row.getBoundingClientRect().bottom <= innerHeight"
    assert current.evaluate(inside)
    names = [group.traces[member].metadata["id"] for member in branch.members]
    assert page.texts("#chosen .bar button") == [*names, "Close"]
    page.page.locator("#chosen .bar button").nth(1).click()
    assert page.texts("#chosen h2") == [f"RESPONSE {names[1].upper()}"]
    page.page.keyboard.press("Escape")
    assert page.page.locator("#chosen").is_hidden()
    assert page.page.evaluate("document.activeElement.dataset.branch") == str(widest)
    page.page.keyboard.press("ArrowLeft")
    assert page.page.evaluate("document.activeElement.dataset.branch") == "0"


def test_shared_steps_show_both_sides(opened, file, group):
    page = opened(file)
    rows = page.page.locator(".step-row")
    assert page.texts(".step-row > bdi") == [step.text for step in group.steps]
    for place, step in enumerate(group.steps):
        shown = rows.nth(place).inner_text()
        for side, share in (("right", step.flow.right), ("wrong", step.flow.wrong)):
            number = getattr(step, side)
            assert (f"\u00b7 {number}" in shown) == (share is not None)
        width = "(bar) => bar.getBoundingClientRect().width"
        bars = [rows.nth(place).locator(f".track.{side} i").evaluate(width) for side in ("right", "wrong")]
        if step.flow.difference is not None:
            assert (bars[0] - bars[1]) * step.flow.difference.mean >= 0
    assert page.texts("#caveat") == [group.caveat()]


@pytest.mark.parametrize("width", [400, 1024])
def test_a_narrow_screen_scrolls_the_tree_and_not_the_page(opened, file, width):
    page = opened(file, viewport={"width": width, "height": 800})
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_groups_that_nothing_tells_apart(opened, tmp_path):
    group = compare_group([respond(name) for name in WAYS])
    page = opened(write_page(tmp_path / "untold.html", group_page(group)))
    assert page.texts("h2")[0].startswith("WHERE THEY PART")
    assert page.page.locator(".step-row .track.all").count() == len(group.steps)
    assert page.texts(".difference") == [""] * (len(group.steps) + len(group.hubs))
    same = compare_group([respond("r0", is_correct=True)] * 2)
    page = opened(write_page(tmp_path / "same.html", group_page(same)))
    assert page.page.locator(".part").count() == 1


def test_hostile_steps_are_text(opened, tmp_path):
    traces = [
        made_trace(HOSTILE, [HOSTILE, [*HOSTILE[n:], " 7"]], metadata={"id": HOSTILE[1], "is_correct": n == 0})
        for n in (0, 1, 2)
    ]
    page = opened(write_page(tmp_path / "hostile.html", group_page(compare_group(traces))))
    page.page.locator(".part").last.click()
    assert page.page.locator("img").count() == 0
    for place in ("#tree", "#shared-steps", "#chosen"):
        assert "<img src=x onerror=alert(1)>" in page.page.locator(place).inner_text()
