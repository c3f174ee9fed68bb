"""Compile the kernels for GPUs that need not be there, and print what the machine code holds, as JSON.

    python tests/compiled_kernels.py 90:bfloat16:plain 80:float32:masked

For each target, type and variant, and each kernel: registers, stack and local bytes of a thread, shared memory of a
program, and the matrix instructions that stand in the PTX. It runs in a process of its own, because it must not
inherit Triton's interpreter, and with a fresh TRITON_CACHE_DIR, because a stale cache hides failures.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from flowtracer.attention.kernels import rows
from flowtracer.attention.kernels.launch import block_width, default_tiles

WIDTH = 128
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
FLOATS = {"scale", "softcap", "unit", "never", "share"}
PLAIN = {
    "HEADS": 32, "GROUP": 4, "WIDTH": WIDTH, "MASK": 0, "SEGMENTS": False, "SINKS": False,
    "NATURAL": False, "SOFTCAP": False, "WIDEN": False,
}  # fmt: skip
VARIANTS = {
    "plain": {},
    "packed": {"SEGMENTS": True, "SINKS": True},
    "masked": {"MASK": 2, "SINKS": True, "NATURAL": True, "SOFTCAP": True},
}


def compiled(kernel, dtype, capability, tiles, changes):
    """The kernel as a launch on aligned, contiguous tensors would compile it."""
    types = {"query": f"*{SHORT[dtype]}", "keys": f"*{SHORT[dtype]}", "segments": "*i32", "mask": "*bf16"}
    names = kernel.arg_names
    width = {"BY_PARTS": dtype == "float32", "BLOCK_D": block_width(getattr(torch, dtype), WIDTH)}
    constants = {
        **PLAIN,
        **changes,
        **width,
        "BLOCK_P": tiles.rows,
        "BLOCK_C": tiles.columns,
        "query_d": 1,
        "key_d": 1,
    }
    constants = {name: value for name, value in constants.items() if name in names}
    signature, aligned = {}, {}
    for index, name in enumerate(names):
        pointer = name in types or name in {"panel", "highest_out", "inverse_out", "highest_in", "inverse_in", "sinks"}
        if name in constants:
            signature[name] = "constexpr"
        else:
            signature[name] = types.get(name, "*fp32") if pointer else "fp32" if name in FLOATS else "i32"
        if pointer or re.fullmatch("(query|key|panel)_[bhtp]", name):
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def report(kernel, dtype, capability, variant):
    tiles = default_tiles(getattr(torch, dtype), WIDTH, masked=variant != "plain")
    code = compiled(kernel, dtype, capability, tiles, VARIANTS[variant])
    path = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    path.write_bytes(code.asm["cubin"])
    usage = subprocess.run(
        [CUOBJDUMP, "--dump-resource-usage", path], capture_output=True, text=True, check=True
    ).stdout
    used = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    ptx = code.asm["ptx"]
    return {
        "kernel": kernel.__name__,
        "dtype": dtype,
        "capability": capability,
        "variant": variant,
        "registers": used["REG"],
        "stack_bytes": used["STACK"],
        "local_bytes": used["LOCAL"],
        "shared_bytes": code.metadata.shared,
        "matrix": sorted(set(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", ptx))),
        "asynchronous_copies": "cp.async" in ptx,
    }


if __name__ == "__main__":
    wanted = [case.split(":") for case in sys.argv[1:]]
    kernels = (rows.row_statistics, rows.add_mean_rows)
    print(json.dumps([report(k, dtype, int(target), variant) for target, dtype, variant in wanted for k in kernels]))
