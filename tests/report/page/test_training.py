"""The page of a training run in a real browser: a slider over steps, and the numbers that entered the loss."""

import dataclasses
import json

import numpy as np
import pytest

from flowtracer.errors import InputError
from flowtracer.report.page.html import write_page
from flowtracer.report.page.payload import pack_trace
from flowtracer.report.page.training import training_page
from flowtracer.trace.trace import TrainedOn
from made import made_trace, sums
from packed import unpacked

STEPS = (0, 10, 25)


def trained(trace, step, advantage, ratio=0.4):
    """The trace as a response that was trained on, the better part of its reasoning boosted by a half."""
    inside = trace.response.mask(len(trace))
    limit = np.quantile(trace.flow[inside], 1 - ratio)
    factor = np.where(inside, np.where(trace.flow >= limit, 1.5, 1.0), 0.0).astype(np.float32)
    made = TrainedOn(step=step, advantage=advantage, factor=factor, token_advantage=np.float32(advantage) * factor)
    return dataclasses.replace(trace, trained=made)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "grpo"
    for number, step in enumerate(STEPS):
        kept = folder / "traces" / f"step-{step:06d}"
        kept.mkdir(parents=True)
        greedy = made_trace(*sums(4, seed=number), seed=number, metadata={"id": "prompt-00-r00", "step": step})
        greedy.save(kept / "prompt-00-r00.safetensors")
        for response, advantage in enumerate((0.7, -0.7, 0.0)):
            known = {"id": f"batch-r{response:02d}", "reward": float(advantage > 0)}
            trace = made_trace(*sums(5, seed=number + response), seed=response, metadata=known)
            trained(trace, step, advantage * (1 + number)).save(kept / f"batch-r{response:02d}.safetensors")
        if number == 1:
            (kept / "batch-r02.safetensors").rename(kept / "prompt-02-r00.safetensors")
        lost = {"id": "prompt-01-r00", "reason": "no_answer", "message": "expected an answer"}
        (kept / "skipped.jsonl").write_text(json.dumps(lost) + "\n")
    return folder


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page") / "run.html", training_page(run))


def test_numbers_that_entered_the_loss_are_whole():
    trace = made_trace(*sums(3))
    entered = (np.random.default_rng(0).normal(size=len(trace))).astype(np.float32)
    given = TrainedOn(step=3, advantage=0.1, factor=np.ones(len(trace), np.float32), token_advantage=entered)
    header, arrays = unpacked(pack_trace(dataclasses.replace(trace, trained=given)))
    np.testing.assert_array_equal(arrays["token_advantage"], entered)
    assert header["trained"] == {"step": 3, "advantage": 0.1}


def test_a_folder_without_steps_is_refused(tmp_path):
    with pytest.raises(InputError, match="trace_steps"):
        training_page(tmp_path)


def test_the_folder_of_traces_itself_gives_the_same_page(run):
    assert training_page(run / "traces") == training_page(run)


def test_the_first_step_opens(opened, file):
    page = opened(file)
    assert page.requests == [file.as_uri()]
    assert page.texts("h1") == ["grpo: 3 kept steps, 0 to 25"]
    assert page.texts("#groups button") == ["prompt 0", "prompt 1", "prompt 2", "batch"]
    assert page.texts("#sentence")[0].startswith("Step 0 \u00b7 answer")
    assert "not trained on" in page.texts("#sentence")[0]


def test_the_text_shows_what_entered_the_loss(opened, file, run):
    page = opened(file, "#group=batch&step=25&response=01")
    assert "advantage \u22122.10" in page.texts("#sentence")[0]
    assert "\u22123.15 to \u22122.10" in page.texts("#sentence")[0]
    boosted = page.page.locator("#response-text .loss.boosted").first
    boosted.hover()
    assert "advantage \u22122.10 \u00d7 credit 1.5 = \u22123.15 in the loss" in page.texts("#token-value")[0]
    assert page.page.locator("#response-text .gain").count() == 0
    page.page.locator("#responses button").nth(0).click()
    page.page.locator("#response-text .gain").first.wait_for()
    assert page.page.locator("#response-text .loss").count() == 0
    page.page.locator("#responses button").nth(2).click()
    page.page.get_by_text("nothing entered the loss").wait_for()
    assert page.page.locator("#response-text :is(.gain, .loss)").count() == 0


def shade(page):
    """The strongest shade of the text, in percent."""
    read = "(spans) => spans.map((span) => parseInt(span.style.getPropertyValue('--shade')))"
    return max(page.page.locator("#response-text .gain").evaluate_all(read))


def test_one_scale_over_all_steps(opened, file):
    page = opened(file, "#group=batch&step=25&response=00")
    strong = shade(page)
    assert "+3.15" in page.texts("#scale")[0]
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("ArrowLeft")
    page.page.get_by_text("advantage +0.700").wait_for()
    assert shade(page) < 0.5 * strong, "the first step's advantage is a third of the last's"
    assert "+3.15" in page.texts("#scale")[0]


def test_slider_keys_and_curve_move_over_the_steps(opened, file):
    page = opened(file)
    page.page.keyboard.press("ArrowRight")
    assert page.texts("#step-value") == ["step 10"]
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowRight")
    assert page.texts("#step-value") == ["step 25"]
    page.page.keyboard.press("ArrowLeft")
    assert page.texts("#step-value") == ["step 10"]
    page.page.locator("#step").fill("0")
    assert page.texts("#step-value") == ["step 0"]
    box = page.page.locator("#curve").bounding_box()
    page.page.mouse.click(box["x"] + 0.97 * box["width"], box["y"] + 40)
    assert page.texts("#step-value") == ["step 25"]
    assert "step=25" in page.fragment


def test_responses_groups_and_colours_by_mouse_and_keyboard(opened, file):
    page = opened(file, "#group=batch&step=25")
    page.page.keyboard.press("ArrowDown")
    assert "response=01" in page.fragment
    page.page.keyboard.press("ArrowUp")
    assert "response=00" in page.fragment
    page.page.keyboard.press("c")
    page.page.locator("#response-text .c4").first.wait_for()
    page.page.locator("#colours button", has_text="advantage").click()
    page.page.locator("#response-text .gain").first.wait_for()
    page.page.locator("#groups button", has_text="prompt 1").press("Enter")
    assert page.texts("#sentence") == ["Step 25 \u00b7 no trace: no answer"]
    assert page.page.locator("#text-card").is_hidden()
    page.page.locator("#groups button", has_text="prompt 2").click()
    assert page.texts("#sentence") == ["Step 25 \u00b7 nothing kept of prompt 2; trained on: batch"]
    assert page.texts("#groups .empty") == ["prompt 2"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(opened, file, scheme):
    page = opened(file, color_scheme=scheme)
    before = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.page.locator("#theme").click()
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_traces_own_page_says_what_a_token_was_trained_with(opened, tmp_path):
    trace = trained(made_trace(*sums(4)), 7, 0.5)
    token = trace.hubs(1)[0].token
    page = opened(trace.to_html(tmp_path / "t.html"), f"#t={token}")
    expected = f"advantage +0.500 \u00d7 credit 1.5 = +{0.5 * 1.5:.3f} in the loss of step 7"
    assert expected in page.texts("#selection")[0]
