"""A million hostile inputs, shared among the laws of `laws.py`.

    python tests/fuzz/run.py --cases 1000000 --seed 0

A failure says its law and its own seed: `--law NAME --seed SEED --cases 1` tries it again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from laws import LAWS  # noqa: E402 - found by the line above


def main(arguments: list[str] | None = None) -> int:
    """Try them; 1 where any law failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all laws together")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each has its own")
    parser.add_argument("--law", choices=LAWS, action="append", help="only these")
    options = parser.parse_args(arguments)
    chosen = options.law or list(LAWS)
    failed = 0
    each = -(-options.cases // len(chosen))
    for name in chosen:
        begun, found = time.process_time(), 0
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(options.seed, options.seed + each):
                try:
                    LAWS[name](Random(seed), Path(folder))
                except Exception:
                    found += 1
                    if found <= 3:
                        print(f"--law {name} --seed {seed} --cases 1\n{traceback.format_exc(limit=-4)}", flush=True)
        failed += found
        print(f"{name}: {each:,} cases, {found} failed, {time.process_time() - begun:.0f} s of computing", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
