"""The kernels against torch's panels and their float64 twin, and as GPUs' machine code.

They run in Triton's interpreter, or on a GPU with KERNELS_ON_GPU=1 (`make gpu`).
"""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowtracer.attention.layer import LayerAttention
from flowtracer.attention.panels import AttentionPanels
from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.flow.solve import solve
from tolerances import assert_close

pytest.importorskip("triton", reason="Triton has no build for this system; on Linux the extra dev brings it")

import kernel as benchmark
from flowtracer.attention.kernels.launch import INTERPRETED, LayerKernel, Tiles
from flowtracer.attention.kernels.reference import LayerReference

# On purpose some tests divide by zero and subtract infinities; numpy, which interprets, says so and a GPU does not.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = "cpu" if INTERPRETED else "cuda"

SMALL = Tiles(rows=16, columns=16, warps=4, stages=2)
"""So small that a short sequence has tiles on, below and left of the diagonal, and outside of the window."""


def layer(length, *, batch=1, heads=4, key_heads=2, width=8, dtype=torch.float32, **changes):
    query = (2 * torch.randn(batch, heads, length, width)).to(dtype)
    keys = torch.randn(batch, key_heads, length, width).to(dtype)
    given = {"query_BHTD": query, "key_BKTD": keys, "mask": None, **changes}
    here = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    return LayerAttention(**{"layer": 3, "scale": 0.7, **here})


def rows_of(implementation, attention, panel_rows=23, dtype=torch.float32, tiles=SMALL):
    """Head means of a whole sequence from panels that are no multiple of a tile."""
    names = ("scale", "mask", "segments_BT", "window", "softcap", "sinks_H")
    given = {name: getattr(attention, name) for name in names}
    layer = implementation(attention.query_BHTD, attention.key_BKTD, tiles=tiles, **given)
    batch, heads, length, _ = attention.query_BHTD.shape
    out = torch.zeros(batch, length, length, dtype=dtype)
    for start in range(0, length, panel_rows):
        stop = min(start + panel_rows, length)
        total = torch.zeros(batch, stop - start, stop, dtype=dtype, device=DEVICE)
        layer.add_rows(total, start, 1 / heads)
        out[:, start:stop, :stop] = total.cpu()
    return out


def kernel_rows(attention, tiles=SMALL):
    return rows_of(LayerKernel, attention, tiles=tiles)


def test_twins_have_one_signature():
    for name in ("__init__", "add_rows"):
        kernel, twin = (inspect.signature(getattr(cls, name)) for cls in (LayerKernel, LayerReference))
        assert kernel == twin, name


def assert_same(attention, tiles=SMALL):
    """In every type: products and sums are float32's, so only the inputs are rounded, for all three alike."""
    got = kernel_rows(attention, tiles)
    torch_rows = attention.weights(0, got.shape[1]).mean(1).tril(-1).cpu()
    assert_close(got, torch_rows, torch.float32)
    assert_close(got, rows_of(LayerReference, attention, dtype=torch.float64), torch.float32)
    return got


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 70])
def test_any_length(length):
    assert_same(layer(length, heads=2))


def padding(length, side):
    padded = torch.arange(length) < 19 if side == "left" else torch.arange(length) >= length - 19
    return torch.stack([torch.ones(length, dtype=torch.int), (~padded).int()])


def additive(allowed, dtype=torch.float32):
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


LENGTH = 37
CAUSAL = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).tril()
PADDED = CAUSAL & padding(LENGTH, "left").bool()[:, None, None, :]
PACKED = (torch.arange(LENGTH) // 14 + 1)[None].expand(2, -1)
VARIANTS = {
    "window within a tile": {"window": 5},
    "window over tiles": {"window": 18},
    "window of one": {"window": 1},
    "soft cap": {"softcap": 2.0},
    "sinks": {"sinks_H": torch.tensor([0.0, 30.0, -30.0, 2.0])},
    "padding on the left": {"segments_BT": padding(LENGTH, "left")},
    "padding on the right": {"segments_BT": padding(LENGTH, "right")},
    "packed": {"segments_BT": PACKED},
    "packed, all at once": {"segments_BT": PACKED, "window": 9, "softcap": 3.0, "sinks_H": torch.randn(4)},
    "boolean mask": {"mask": PADDED},
    "additive mask": {"mask": additive(PADDED[1:]), "softcap": 3.0},
    "additive mask in half precision": {"mask": additive(PADDED[1:], torch.bfloat16)},
    "a bias in the mask": {"mask": additive(CAUSAL) - torch.rand(1, 1, LENGTH, LENGTH)},
    "one key head": {"key_heads": 1},
    "as many key heads": {"key_heads": 4},
    "odd width": {"width": 20},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_attention(variant):
    changes = VARIANTS[variant]
    rows_of_their_own = "segments_BT" in changes or changes.get("mask") is PADDED
    assert_same(layer(LENGTH, **{"batch": 2 if rows_of_their_own else 1, **changes}))


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [("sinks", torch.float16), ("a bias in the mask", torch.bfloat16), ("odd width", torch.bfloat16)],
)
def test_half_precision(dtype, variant):
    assert_same(layer(LENGTH, dtype=dtype, **VARIANTS[variant]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"window": 130}, {"segments_BT": (torch.arange(300) // 140 + 1)[None]}])
def test_tiles_as_a_launch_chooses_them(dtype, changes):
    assert_same(layer(300, width=64, dtype=dtype, scale=0.1, **changes), tiles=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_extreme_scores(dtype):
    # Whole numbers, so that scores of 1e4 and more are exact and the softmax alone is judged.
    attention = layer(LENGTH, dtype=dtype, scale=4.0)
    attention.query_BHTD.mul_(30).round_()
    attention.key_BKTD.mul_(30).round_()
    assert float((attention.scores(0, LENGTH)).abs().nan_to_num(posinf=0).max()) > 1e4
    rows = assert_same(attention)
    assert float(rows.max()) > 0.2, "one token takes all of a head's attention, and the rest is exactly zero"


def test_equal_scores():
    attention = layer(LENGTH)
    attention.query_BHTD.zero_()
    uniform = torch.ones(LENGTH, LENGTH).tril(-1) / torch.arange(1, LENGTH + 1)[:, None]
    assert_close(assert_same(attention)[0], uniform, torch.float32)


def test_queries_and_keys_as_models_lay_them_out():
    attention = layer(LENGTH, heads=2, key_heads=1)
    strided = LayerAttention(
        layer=3,
        query_BHTD=attention.query_BHTD.transpose(1, 2).contiguous().transpose(1, 2),
        key_BKTD=attention.key_BKTD.mT.contiguous().mT,
        scale=attention.scale,
        mask=None,
    )
    assert torch.equal(kernel_rows(strided), kernel_rows(attention))


def test_a_row_that_may_attend_to_nothing_is_zero():
    allowed = CAUSAL.clone()
    allowed[..., 20, :] = False
    for mask in (allowed, additive(allowed)):
        rows = kernel_rows(layer(LENGTH, mask=mask))
        assert not rows[0, 20].any()
        assert rows[0, 21, :21].gt(0).all()


@pytest.mark.parametrize("mask", [None, CAUSAL, additive(CAUSAL)])
def test_nan_stays_visible(mask):
    attention = layer(LENGTH, mask=mask)
    attention.query_BHTD[0, 1, 20] = torch.nan
    rows = kernel_rows(attention)
    assert rows[0, 20, :20].isnan().all()
    assert rows[0, :20].isfinite().all()
    assert rows[0, 21:].isfinite().all()


def test_scores_that_are_all_minus_infinity_are_nan():
    attention = layer(LENGTH, heads=2, key_heads=2)
    attention.query_BHTD.abs_()
    attention.key_BKTD.fill_(-torch.inf)
    assert kernel_rows(attention)[0, 5, :5].isnan().all()


# The panels that choose


def test_panels_average_the_chosen_heads_of_all_layers():
    layers = [layer(LENGTH, batch=2).with_heads([0, 3]), layer(LENGTH, batch=2, window=7).with_heads([2])]
    fused, plain = (AttentionPanels(layers, implementation=name) for name in ("triton", "torch"))
    for start, stop in ((0, 1), (3, LENGTH)):
        assert_close(fused.rows(start, stop), plain.rows(start, stop), torch.float32)
    question, answer = torch.zeros(2, 2, LENGTH, dtype=torch.bool)
    question[:, :9], answer[:, -2:] = True, True
    got, expected = (solve(panels, question, answer) for panels in (fused, plain))
    assert_close(got.flow_BT, expected.flow_BT, torch.float32)


def test_kernels_are_chosen_on_a_gpu_alone():
    assert AttentionPanels([layer(8)]).implementation == ("torch" if DEVICE == "cpu" else "triton")


def test_an_unknown_implementation_is_refused():
    with pytest.raises(InputError, match=r"\['auto', 'torch', 'triton'\], got 'cuda'"):
        AttentionPanels([layer(8)], implementation="cuda")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mask": lambda b, h, q, k: k <= q}, "rule"),
        ({"mask": CAUSAL.repeat(1, 4, 1, 1)}, "each head"),
        ({"position_bias": torch.zeros(1, 4, LENGTH, LENGTH)}, "position bias"),
        ({"dtype": torch.float64}, "float64"),
        ({"width": 257}, "width 257"),
        ({"scale": 0.0}, "scaled by 0.0"),
    ],
)
def test_what_the_kernels_do_not_take(changes, reason):
    with pytest.raises(InputError, match=f"{reason}.* in layer 3; use implementation='auto' or 'torch'"):
        AttentionPanels([layer(LENGTH), layer(LENGTH, **changes)], implementation="triton")


def test_without_triton(monkeypatch):
    for name in ("flowtracer.attention.kernels.launch", "flowtracer.attention.kernels.rows"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(MissingDependencyError, match="pip install triton"):
        AttentionPanels([layer(8)], implementation="triton")


# Real compilation, for GPUs that need not be there

CASES = [
    ("80", "bfloat16", "plain"),
    ("90", "float16", "plain"),
    ("100", "bfloat16", "plain"),
    ("80", "float32", "plain"),
    ("90", "bfloat16", "packed"),
    ("90", "bfloat16", "masked"),
]
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    script = Path(__file__).with_name("compiled_kernels.py")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    command = [sys.executable, "-W", "error", script, *map(":".join, CASES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_products_of_half_types_run_on_the_matrix_units(compiled):
    assert len(compiled) == 2 * len(CASES)
    for found in compiled:
        exact = found["dtype"] == "float32"
        assert found["matrix"] == ([] if exact else [MATRIX[found["capability"]]]), found
        assert found["asynchronous_copies"], found


def test_nothing_spills_and_every_gpu_has_the_memory(compiled):
    for found in compiled:
        assert found["stack_bytes"] == found["local_bytes"] == 0, found
        assert found["shared_bytes"] <= 99 * 1024, "what a program may have on the smallest GPUs, sm_86 and sm_89"


# The benchmark, at a size that the interpreter can do


def test_the_benchmark_runs():
    shape = benchmark.Shape(heads=2, key_heads=1, width=16, dtype=torch.bfloat16)
    peaks = benchmark.Peaks(bytes=1e9, exponentials=1e9, products=1e9)
    found = benchmark.measure(20, shape, peaks, rounds=1, device=DEVICE)
    assert found["floor_seconds"]["work"] == pytest.approx(2 * 2 * 210 * 33e-9)
    assert found["floor_seconds"]["bytes"] == pytest.approx((20 * 16 * 3 * 2 + 4 * 210) / 1e9)
    assert 0 < found["share_of_floor"] < 1
    streamed = benchmark.measure_streamed(40, shape, layers=2, device=DEVICE)
    assert streamed["flow_into_the_answer"] == pytest.approx(1.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="what it says where there is no GPU; runs on a machine without")
def test_the_benchmark_needs_a_gpu(capsys):
    with pytest.raises(SystemExit) as left:
        benchmark.main([])
    assert left.value.code == 2
    assert "expected an NVIDIA GPU" in capsys.readouterr().err
