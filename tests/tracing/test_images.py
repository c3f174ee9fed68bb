"""Traces over images: flow as of any tokens, patches where they lie, the same from disk, from JSONL and by name."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import flowtracer as ft
from flowtracer.checks.masking import with_hub_effects
from flowtracer.errors import CaptureError, FormatError, InputError, TraceError
from flowtracer.flow import compute_flow
from flowtracer.trace.compare import compare
from flowtracer.trace.pictures import MOST_BYTES, open_picture, small_copy
from flowtracer.trace.records import read_rollouts
from flowtracer.trace.summary import image_shares
from flowtracer.trace.trace import Rollout, Skipped
from flowtracer.trace.wellformed import check
from flowtracer.tracing.patches import views_of
from tiny import tiny_model, tiny_tokenizer
from tiny_vlm import BOTH_WAYS, CAUSAL, asked, picture, tiny_vlm

every_family = pytest.mark.parametrize("family", CAUSAL)

WIDE, TALL = picture(3, 28, 56), picture(4, 56, 28)
QUESTION, RESPONSE = "what is 3 + 4?", "3 + 4 = 7.\nA: 7<|end|>"


def prompt_of(*pictures, question=QUESTION):
    shown = [{"type": "image", "image": one} for one in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]


@pytest.fixture(scope="module")
def llava():
    vlm = tiny_vlm("llava")
    return ft.Tracer(vlm.model, vlm.processor)


@every_family
def test_a_trace_is_the_reference_on_the_same_attention_and_the_same_tokens_as_a_trainers(family):
    vlm = tiny_vlm(family)
    tracer = ft.Tracer(vlm.model, vlm.processor)
    pictures = [WIDE, TALL]
    trace = tracer.trace(prompt_of(*pictures), RESPONSE)
    batch = asked(vlm, [(pictures, QUESTION, RESPONSE)])
    ids_BT = torch.cat([batch.pop("prompt_ids"), batch.pop("completion_ids")], 1)
    mask_BT = torch.cat([batch.pop("prompt_mask"), batch.pop("completion_mask")], 1)
    assert trace.token_ids.tolist() == ids_BT[0].tolist()
    del batch["num_images"]

    vlm.model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = vlm.model(input_ids=ids_BT, attention_mask=mask_BT, output_attentions=True, **batch).attentions
    chosen = torch.stack([maps[layer][0].double().mean(0) for layer in trace.layers]).mean(0)
    masks = (span.mask(len(trace)) for span in (trace.question, trace.sink))
    expected = compute_flow(chosen, *masks, implementation="reference")
    for name in ("reach", "flow"):
        wanted = getattr(expected, f"{name}_T")
        np.testing.assert_allclose(getattr(trace, name), wanted, rtol=2e-4, atol=1e-6, err_msg=name)
    assert trace.conservation_error() < 1e-6


@every_family
def test_every_patch_lies_where_painting_it_changes_its_own_token_most(family):
    vlm = tiny_vlm(family)
    tracer = ft.Tracer(vlm.model, vlm.processor)
    plain = Image.new("RGB", (56, 56), (90, 90, 90))
    rollout = Rollout(prompt=prompt_of(plain), response=RESPONSE)
    encoded = tracer._encode(rollout)
    (image,) = encoded.images
    assert image.placed
    assert sorted(image.tokens) == np.flatnonzero(encoded.text.token_ids == vlm.image_token).tolist()
    before = embedded(vlm, tracer, rollout)
    for view in image.views:
        rows, columns = view.shape
        height, width = 56 // rows, 56 // columns
        for row, column in np.ndindex(rows, columns):
            painted = plain.copy()
            painted.paste((250, 20, 60), (column * width, row * height, (column + 1) * width, (row + 1) * height))
            after = embedded(vlm, tracer, dataclasses.replace(rollout, prompt=prompt_of(painted)))
            moved = np.linalg.norm(after - before, axis=1)
            assert view.ravel()[moved[view.ravel()].argmax()] == view[row, column]


def embedded(vlm, tracer, rollout):
    """What stands at each token as the decoder takes it in."""
    kept = []

    def keep(_, args, kwargs):
        kept.append(kwargs["inputs_embeds"])

    hook = vlm.model.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
    item = tracer._encode(rollout)
    inputs = item.shown.inputs(vlm.model, len(item.text.token_ids))
    with torch.no_grad():
        vlm.model(input_ids=torch.from_numpy(item.text.token_ids)[None], **inputs)
    hook.remove()
    return kept[0][0].numpy()


def test_a_family_of_which_no_more_is_known_has_a_row_for_each_picture(monkeypatch):
    """As of one that mixes the whole picture into each token; here of Qwen2-VL, as if it said nothing of its grids."""
    monkeypatch.setattr("flowtracer.tracing.shown.views_of", lambda *_: None)
    vlm = tiny_vlm("qwen2_vl")
    trace = ft.Tracer(vlm.model, vlm.processor).trace(prompt_of(picture(1), WIDE), RESPONSE)
    assert [image.placed for image in trace.images] == [False, False]
    assert [view.shape for image in trace.images for view in image.views] == [(1, 1), (1, 2)]
    assert trace.label(int(trace.images[1].tokens[1])) == "image 2, patch 2"


def test_counts_that_do_not_come_out_give_no_grid():
    vlm = tiny_vlm("llava")
    tokens = np.arange(3, 3 + 9)
    pixels = torch.zeros(1, 3, 28, 28)  # four patches, where the prompt has nine tokens: a square, and no grid
    assert views_of(vlm.model.config, ["x"] * 12, tokens, {"pixel_values": pixels}, 1) is None
    assert views_of(vlm.model.config, ["x"] * 12, tokens, {"image_grid_thw": torch.tensor([[1, 2, 4]])}, 1) is None
    idefics = tiny_vlm("idefics3").model.config
    pieces = ["<row_1_col_1>", *["<image>"] * 4, "<row_2_col_2>", *["<image>"] * 4, "<global-img>", *["<image>"] * 4]
    tokens = np.flatnonzero(np.array(pieces) == "<image>")
    assert views_of(idefics, pieces, tokens, {}, 1) is None, "two tiles at the corners of a grid of four"
    assert len(views_of(idefics, ["a", *pieces[1:5], *pieces[10:]], np.delete(tokens, slice(4, 8)), {}, 1) or ()) == 0


def test_patches_are_units_and_hubs_of_their_own(llava):
    trace = llava.trace(prompt_of(WIDE, TALL), RESPONSE)
    units = trace.units("words")
    assert [token for unit in units for token in unit.span] == list(range(len(trace)))
    patches = [unit for unit in units if unit.kind == "patch"]
    assert [unit.span.start for unit in patches] == [t for image in trace.images for t in image.tokens]
    assert patches[5].told == "image 2, row 1, column 2"
    assert {unit.label for unit in trace.units("tokens") if unit.kind == "patch"} == {unit.label for unit in patches}
    hubs = trace.hubs(len(trace), prompt=True)
    assert {hub.unit.kind for hub in hubs} >= {"patch", "number"}
    assert not any(hub.unit.kind == "patch" for hub in trace.hubs(len(trace))), "of the reasoning alone by default"
    for level in ("steps", "words", "tokens"):
        assert trace.paths(3, level=level)


def test_the_summary_says_how_much_leaves_the_prompt_from_the_image(llava):
    trace = llava.trace(prompt_of(WIDE), RESPONSE)
    shown = set(trace.images[0].tokens.tolist())
    border = trace.response.start
    crossing = [
        (source in shown, flow)
        for source, target, flow in zip(trace.edges.source, trace.edges.target, trace.edges.flow, strict=True)
        if source < border <= target
    ]
    assert sum(flow for _, flow in crossing) == pytest.approx(1, abs=1e-6), "every walk crosses once"
    share = sum(flow for from_image, flow in crossing if from_image)
    assert image_shares(trace).tolist() == pytest.approx([share])
    assert f", and {share:.0%} leaves the prompt from the image." in trace.summary()
    assert "image" not in llava.trace([{"role": "user", "content": QUESTION}], RESPONSE).summary()


def test_a_trace_comes_back_from_disk_with_its_images(llava, tmp_path):
    trace = llava.trace(prompt_of(WIDE, TALL), RESPONSE)
    back = ft.load_trace(trace.save(tmp_path / "t.safetensors"))
    assert back == trace
    for one, other in zip(back.images, trace.images, strict=True):
        assert (one.placed, one.picture) == (other.placed, other.picture)
        assert all(np.array_equal(*views) for views in zip(one.views, other.views, strict=True))
    json.dumps(trace.to_dict())


def test_responses_are_compared_where_they_are_to_the_same_picture(llava):
    one, other, stranger = (
        llava.trace(prompt_of(shown), response)
        for shown, response in ((WIDE, RESPONSE), (WIDE, "4 + 3 = 7.\nA: 7"), (picture(1), RESPONSE))
    )
    assert compare(one, other).shared_tokens >= one.response.start
    np.testing.assert_array_equal(one.token_ids, stranger.token_ids)
    with pytest.raises(InputError, match="expected responses to one prompt"):
        compare(one, stranger)


@pytest.mark.parametrize(
    "wrong",
    [
        {"views": (np.array([[0, 0]]),)},  # one token, two patches
        {"views": (np.array([[-1]]),)},
        {"views": (np.array([[10**6]]),)},
        {"views": (np.array([[0.5]]),)},
        {"views": ()},
        {"placed": "yes"},
        {"picture": b"<svg onload='alert(1)'/>"},
    ],
)
def test_forged_images_are_refused(llava, tmp_path, wrong):
    trace = llava.trace(prompt_of(WIDE), RESPONSE)
    for name, value in wrong.items():
        object.__setattr__(trace.images[0], name, value)  # tests check types where an object is made, and users do not
    with pytest.raises(ValueError, match="images cannot be that of a trace"):
        check(trace)
    with pytest.raises(FormatError, match="expected a trace written by"):
        ft.load_trace(trace.save(tmp_path / "t.safetensors"))


def test_a_small_copy_is_small_whatever_the_picture(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 700, 3), dtype=np.uint8))
    copy = small_copy(noise)
    (tmp_path / "copy.webp").write_bytes(copy)
    with Image.open(tmp_path / "copy.webp") as shown:
        assert max(shown.size) <= 512
        assert shown.height / shown.width == pytest.approx(900 / 700, rel=0.02)
    assert len(copy) <= MOST_BYTES


def test_of_a_square_model_the_trace_holds_the_square_that_it_was_shown(llava, tmp_path):
    wide = Image.new("RGB", (84, 28), (250, 0, 0))
    wide.paste((0, 0, 250), (28, 0, 56, 28))  # what a crop at the centre keeps
    (image,) = llava.trace(prompt_of(wide), RESPONSE).images
    (tmp_path / "shown.webp").write_bytes(image.picture)
    with Image.open(tmp_path / "shown.webp") as shown:
        assert shown.size == (28, 28)
        assert np.abs(np.asarray(shown.convert("RGB")).reshape(-1, 3).mean(0) - (0, 0, 250)).max() < 12


@pytest.fixture
def records(tmp_path):
    """A file of rollouts beside its images, in a folder of its own."""
    folder = tmp_path / "records"
    (folder / "shown").mkdir(parents=True)
    WIDE.save(folder / "shown" / "wide.png")
    TALL.save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "no.png").write_bytes(b"no picture")

    def write(*names):
        file = folder / "r.jsonl"
        lines = [json.dumps({"prompt": prompt_of(name), "response": RESPONSE, "id": str(name)}) for name in names]
        file.write_text("\n".join(lines))
        return file

    return write


def test_a_record_names_an_image_beside_its_file(llava, records):
    (rollout,) = read_rollouts(records("shown/wide.png"))
    from_file, from_memory = llava.trace_batch([rollout, Rollout(prompt=prompt_of(WIDE), response=RESPONSE)])
    np.testing.assert_array_equal(from_file.flow, from_memory.flow)
    assert from_file.images[0].picture == from_memory.images[0].picture


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../outside.png", "within the folder of the records"),
        ("link.png", "within the folder of the records"),
        ("{outside}", "within the folder of the records"),
        ("shown/none.png", "which is none"),
        ("https://example.org/a.png", "which is none"),
        ("a\0b", "which is none"),
        (None, "as the path of its file"),
        ({"bytes": "x"}, "as the path of its file"),
    ],
)
def test_a_record_names_no_other_image(records, tmp_path, name, said):
    name = str(tmp_path / "outside.png") if name == "{outside}" else name
    bad, good = read_rollouts(records(name, "shown/wide.png"))
    assert isinstance(bad, Skipped)
    assert bad.reason == "bad_image"
    assert said in bad.message
    assert isinstance(good, Rollout)


def test_a_file_that_is_no_picture_is_named_and_the_others_go_on(llava, records):
    bad, good = llava.trace_batch(read_rollouts(records("no.png", "shown/wide.png")))
    assert (bad.id, bad.reason) == ("no.png", "bad_image")
    assert good.images


def test_a_picture_that_goes_while_it_waits_is_named_and_the_others_go_on(llava, records):
    first, second = read_rollouts(records("shown/wide.png", "shown/wide.png"))
    results = llava.trace_stream([first, second])
    assert next(results)[1].images
    Path(second.prompt[0]["content"][0]["image"]).unlink()
    assert [result.reason for _, result in results] == ["bad_image"]


def test_a_rollout_is_known_by_what_its_images_show(records):
    (first,) = read_rollouts(records("shown/wide.png"))
    file = records("shown/wide.png")
    before = first.digest
    assert next(read_rollouts(file)).digest == before
    open_picture(first.prompt[0]["content"][0]["image"]).rotate(180).save(file.parent / "shown" / "wide.png")
    assert next(read_rollouts(file)).digest != before
    in_memory = [Rollout(prompt=prompt_of(one), response=RESPONSE).digest for one in (WIDE, WIDE.copy(), TALL)]
    assert in_memory[0] == in_memory[1] != in_memory[2]


@pytest.mark.parametrize("options", [{"capacity": "value"}, {"capacity": "gradient"}, {"graph": "layered"}])
def test_other_capacities_and_graphs_are_shown_the_image_too(options):
    vlm = tiny_vlm("qwen2_5_vl")
    tracer = ft.Tracer(vlm.model, vlm.processor, **options)
    one, other = (tracer.trace(prompt_of(shown), RESPONSE) for shown in (WIDE, picture(9, 28, 56)))
    assert one.conservation_error() < 1e-6
    assert np.abs(one.flow - other.flow).max() > 1e-4, "another picture, other flow"


def test_batches_and_packing_change_nothing(llava):
    rollouts = [
        Rollout(prompt=prompt_of(WIDE), response=RESPONSE),
        Rollout(prompt=[{"role": "user", "content": QUESTION}], response=RESPONSE),
        Rollout(prompt=prompt_of(WIDE, TALL), response=RESPONSE),
        Rollout(prompt=[{"role": "user", "content": "how many?"}], response=RESPONSE),
    ]
    alone = [llava.trace_batch([rollout])[0] for rollout in rollouts]
    for pack in (False, True):
        for one, other in zip(llava.trace_batch(rollouts, pack=pack), alone, strict=True):
            np.testing.assert_allclose(one.flow, other.flow, rtol=1e-4, atol=1e-6)


def test_the_users_message_is_its_text_and_its_images(llava):
    tracer = ft.Tracer(llava.model, llava.processor, question="user")
    said = [{"role": "system", "content": "First add."}, *prompt_of(WIDE)]
    trace = tracer.trace(said, RESPONSE)
    assert trace.question.start == trace.images[0].tokens[0]
    assert trace.slice_text(trace.question).endswith(QUESTION)


def test_sampled_tokens_are_taken_where_they_are_the_prompts(llava):
    trace = llava.trace(prompt_of(WIDE), RESPONSE)
    ids = trace.token_ids.tolist()
    parts = ids[: trace.response.start], ids[trace.response.start :]
    again = llava.trace_batch([Rollout(prompt=prompt_of(WIDE), response="", token_ids=parts)])[0]
    np.testing.assert_array_equal(again.flow, trace.flow)
    other = llava.trace_batch([Rollout(prompt=prompt_of(WIDE, TALL), response="", token_ids=parts)])[0]
    assert other.reason == "other_tokens"


def test_what_a_model_cannot_do_is_said():
    with pytest.raises(TraceError, match="reads text alone"):
        ft.Tracer(tiny_model(), tiny_tokenizer()).trace(prompt_of(WIDE), RESPONSE)
    vlm = tiny_vlm("llava")
    with pytest.raises(TraceError, match="got its tokenizer alone"):
        ft.Tracer(vlm.model, vlm.processor.tokenizer).trace(prompt_of(WIDE), RESPONSE)
    both = tiny_vlm(BOTH_WAYS)
    with pytest.raises(CaptureError, match="tokens of an image attend to later ones, as in Gemma 3"):
        ft.Tracer(both.model, both.processor).trace(prompt_of(WIDE), RESPONSE)
    trace = ft.Tracer(vlm.model, vlm.processor).trace(prompt_of(WIDE), RESPONSE)
    with pytest.raises(InputError, match="got one over images"):
        with_hub_effects(vlm.model, trace)


def test_a_model_of_images_is_loaded_with_its_processor(llava, tmp_path):
    llava.model.save_pretrained(tmp_path)
    llava.processor.save_pretrained(tmp_path)
    tracer = ft.Tracer.from_pretrained(str(tmp_path), device="cpu")
    one, other = (t.trace(prompt_of(WIDE), RESPONSE) for t in (tracer, llava))
    np.testing.assert_allclose(one.flow, other.flow, rtol=1e-5)
