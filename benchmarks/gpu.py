"""All that is to be known of a GPU, in one command of at most nine minutes: right, fast, long, and cheap.

    make gpu

1. *right*: the tests of the kernels, compiled and run on the GPU, against float64;
2. *fast*: every row of one layer at 1K, 8K and 32K tokens, beside what the machine could do at best (kernel.py);
3. *cheap*: credit's share of a GRPO step with a model of 4 B parameters at 1K and 8K tokens (step_share.py);
4. *long*: whole traces by that model of 8K, 32K and 128K tokens, with their memory (long_trace.py).

Nothing is downloaded. Each part runs in a process of its own, with what time is left; one that fails or runs out of
time is named, and the others count. Results go to benchmarks/results/gpu.json, which `benchmarks/report.py` reads. The
exit code is 0 where all parts ran, 1 where one did not, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flowtracer.study.machine import stamp
from machine import require_gpu

HERE = Path(__file__).parent
TESTS = ("-m", "pytest", "-q", "--numprocesses", "8", "--dist", "load", "tests/attention/test_kernels.py")
MEASURED = {
    "kernel": ("kernel.py", "--lengths", "1024", "8192", "32768", "--streamed", "0"),
    "step_share": ("step_share.py", "gpu-1k", "gpu-8k", "--rounds", "3"),
    "long_trace": ("long_trace.py",),
}


def run(command: Sequence[str], deadline: float, **environment: str) -> tuple[str | None, str]:
    """Run Python until it ends or time is up, and show what it printed.

    Returns:
        What went wrong, None where nothing did; and the last line that it printed.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            cwd=HERE.parent,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        output.seek(0)
        text = output.read()
    print(text, flush=True)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return ("out of time" if code is None else f"exit code {code}" if code else None), last


def measure(minutes: float) -> dict[str, Any]:
    """All parts, as far as the time allows."""
    deadline = time.monotonic() + 60 * minutes
    found: dict[str, Any] = {"machine": stamp()}
    wrong, last = run(TESTS, deadline, KERNELS_ON_GPU="1")
    found["against_float64"] = {"failure": wrong, "summary": last}
    with tempfile.TemporaryDirectory() as folder:
        for name, (script, *options) in MEASURED.items():
            out = Path(folder, f"{name}.json")
            wrong, last = run([str(HERE / script), *options, "--out", str(out)], deadline)
            result = json.loads(out.read_text()) if out.exists() else {"summary": last}
            found[name] = {"failure": wrong, **{key: value for key, value in result.items() if key != "machine"}}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results/gpu.json")
    options = parser.parse_args(arguments)
    require_gpu()
    found = measure(options.minutes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    failures = {name: part["failure"] for name, part in found.items() if name != "machine" and part["failure"]}
    for name, why in failures.items():
        Console(stderr=True).print(f"{name}: {why}")
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
