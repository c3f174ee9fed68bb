"""The page of a trace over images in a real browser: pictures, their patches, and what they are called."""

import dataclasses

import numpy as np
import pytest

import flowtracer as ft
from flowtracer.report.page.comparison import comparison_page
from flowtracer.report.page.html import trace_page, write_page
from flowtracer.report.page.payload import pack_trace
from flowtracer.trace.compare import compare
from packed import unpacked
from tiny_vlm import picture, tiny_vlm
from traces import make_trace

RESPONSE = "3 + 4 = 7.\nA: 7<|end|>"


def traced(family, *responses):
    vlm = tiny_vlm(family)
    tracer = ft.Tracer(vlm.model, vlm.processor)
    shown = [{"type": "image", "image": picture(seed, 28, 56)} for seed in (1, 2)]
    prompt = [{"role": "user", "content": [*shown, {"type": "text", "text": "what is 3 + 4?"}]}]
    return [tracer.trace(prompt, response) for response in responses or (RESPONSE,)]


@pytest.fixture(scope="module")
def trace():
    """Pictures in tiles, so that each has two views."""
    return traced("smolvlm")[0]


@pytest.fixture(scope="module")
def file(trace, tmp_path_factory):
    return trace.to_html(tmp_path_factory.mktemp("pages") / "trace.html")


def patches_of(page):
    """Token, name and place on the screen of every patch, by view."""
    return page.page.evaluate(
        "[...document.querySelectorAll('.patches')].map((view) => [...view.children].map((cell) => {"
        "  const box = cell.getBoundingClientRect();"
        "  return [Number(cell.dataset.t), cell.ariaLabel, box.left, box.top]; }))"
    )


def test_pictures_are_shown_with_each_patch_in_its_place(opened, file, trace):
    page = opened(file)
    widths = page.page.locator(".view img").evaluate_all("all => all.map((image) => image.naturalWidth)")
    assert widths == [56] * 4
    views = [view for image in trace.images for view in image.views]
    for view, cells in zip(views, patches_of(page), strict=True):
        assert [token for token, *_ in cells] == view.ravel().tolist()
        assert all(name.startswith(f"{trace.label(token)}: ") for token, name, *_ in cells)
        lefts, tops = (np.array([cell[axis] for cell in cells]).reshape(view.shape) for axis in (2, 3))
        assert (np.diff(lefts, axis=1) > 1).all()
        assert (np.diff(tops, axis=0) > 1).all()
    assert "<image>" not in page.page.locator("#ribbon").inner_text(), "a patch is no text"


def test_paint_is_the_rank_of_a_patch_among_all_patches(opened, file, trace):
    page = opened(file)
    tokens = np.concatenate([image.tokens for image in trace.images])
    ranked = tokens[np.argsort(-trace.flow[tokens])]
    top = page.page.locator(".p4").evaluate_all("all => all.map((cell) => Number(cell.dataset.t))")
    assert sorted(top) == sorted(ranked[: int(np.ceil(0.05 * len(ranked)))].tolist())
    assert page.texts("#patches .name")[0] == trace.label(int(ranked[0]))


def test_a_patch_is_pointed_at_pinned_and_walked_from_as_a_token_is(opened, file, trace):
    page = opened(file)
    token = int(trace.images[0].views[0][0, 1])
    cell = page.page.locator(f"[data-t='{token}']")
    cell.hover()
    assert trace.label(token) in page.texts("#selection")[0]
    assert "focus" in cell.get_attribute("class")
    cell.click()
    assert f"t={token}" in page.fragment
    target = int(trace.edges.target[trace.edges.source == token][0])
    page.page.locator("#ribbon").focus()
    page.page.keyboard.press("ArrowRight")
    assert f"t={target}" in page.fragment.split("&")[0]


def test_arrow_keys_move_over_a_picture_that_has_the_keyboard(opened, file, trace):
    page = opened(file)
    view = trace.images[0].views[0]
    page.page.locator(f"[data-t='{view[0, 0]}']").click()
    page.page.locator(".patches").first.focus()
    for key, place in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("ArrowLeft", (1, 0)), ("ArrowLeft", (1, 0))):
        page.page.keyboard.press(key)
        assert page.fragment.split("&")[0] == f"#t={view[place]}"


def test_paint_can_be_taken_off(opened, file):
    page = opened(file)
    painted = page.page.locator(".p4").first
    colour = "cell => getComputedStyle(cell).backgroundColor"
    before = painted.evaluate(colour)
    button = page.page.locator(".paint").first
    button.click()
    inside = page.page.locator(".shown").first.locator("[class^='p']").first.evaluate(colour)
    assert inside == "rgba(0, 0, 0, 0)" != before
    assert button.get_attribute("aria-pressed") == "false"


def test_only_a_page_with_pictures_may_show_any_and_none_from_elsewhere(trace):
    policy = "content=\"default-src 'none'; script-src"
    for page, allowed in ((trace_page(trace), True), (trace_page(make_trace()), False)):
        assert policy in page
        assert ("img-src data:" in page) is allowed
        assert "http:" not in page.split("<script>")[0] + page.split("</script>")[1]
    header, arrays = unpacked(pack_trace(trace))
    assert all(image["picture"].startswith("data:image/webp;base64,") for image in header["images"])
    assert len(arrays["patch_token"]) == sum(len(image.tokens) for image in trace.images)


def test_bytes_that_are_no_picture_leave_the_patches(opened, trace, tmp_path):
    broken = dataclasses.replace(trace.images[0], picture=b"RIFF\0\0\0\0WEBP" + b"\xff" * 40)
    forged = dataclasses.replace(trace, images=(broken, trace.images[1]))
    page = opened(forged.to_html(tmp_path / "t.html"))
    page.page.wait_for_selector(".missing")
    assert len(patches_of(page)[0]) == trace.images[0].views[0].size


def test_comparisons_say_image_where_one_stands(opened, tmp_path):
    one, other = traced("llava", RESPONSE, "4 + 3 = 7.\nA: 7")
    page = opened(write_page(tmp_path / "c.html", comparison_page(compare(one, other))))
    assert "[image 1][image 2]" in page.page.locator("body").inner_text()
