"""Run files under several seeds, as many at a time as there are cores, and their results.

    python experiments/run.py experiments/runs/countdown_*.toml --seeds 5

Every run is a process of its own on one core. Its checkpoints go to `runs/experiments/NAME/seed-N`, and when it is
done, its curve goes into `experiments/results/NAME.json`. Finished seeds are skipped and interrupted ones go on, so the
same command may be killed and given again. `report.py` makes tables and pictures out of the results.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N - 1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        train_one(options.runs[0], options.one)
        return
    # Seed by seed, so that an interrupted study has compared all runs under the seeds that it has done.
    jobs = [(run, seed) for seed in range(options.seeds) for run in options.runs if str(seed) not in results(run)]
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(launch, run, seed): (run, seed) for run, seed in jobs}
        for future in as_completed(futures):
            run, seed = futures[future]
            future.result()
            curve = read_curve(folder(run, seed) / "log.jsonl")
            write_result(run, seed, curve)
            print(f"{run.stem} seed {seed}: held-out {curve['held_out'][-1][1]:.1%}", flush=True)


def folder(run: Path, seed: int) -> Path:
    """Where a run keeps its checkpoints and log."""
    return Path("runs/experiments") / run.stem / f"seed-{seed}"


def launch(run: Path, seed: int) -> None:
    """Train in a process with one thread: two runs on two cores are faster than one after the other on both."""
    log = folder(run, seed).with_suffix(".out")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(run), "--one", str(seed)]
    with log.open("a") as file:
        subprocess.run(command, check=True, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})


def train_one(path: Path, seed: int) -> None:
    """One run under one seed."""
    from flowtracer.rl.run import read_run_file, train

    run = read_run_file(path)
    where = folder(path, seed)
    train(run.model_copy(update={"seed": seed, "output_dir": where}))
    for checkpoint in where.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def read_curve(log: Path) -> dict[str, Any]:
    """What the result of a run keeps of its log; of lines that an interruption repeated, the later ones."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    curve: dict[str, dict[int, list[float]]] = {"held_out": {}, "reward": {}, "step_seconds": {}, "credit_seconds": {}}
    names = {"reward": "reward", "step_time": "step_seconds", "credit/seconds": "credit_seconds"}
    for line in lines:
        if "held_out/accuracy" in line:
            curve["held_out"][line["step"]] = [line["held_out/accuracy"], line["held_out/low"], line["held_out/high"]]
        for name, kept in names.items():
            if name in line:
                curve[kept][line["step"]] = [line[name]]
    return {name: [[step, *values] for step, values in sorted(points.items())] for name, points in curve.items()}


def result_file(run: Path) -> Path:
    """Where the results of a run file are."""
    return RESULTS / f"{run.stem}.json"


def results(run: Path) -> dict[str, Any]:
    """The curves of the seeds that are done."""
    file = result_file(run)
    return json.loads(file.read_text())["seeds"] if file.exists() else {}


def write_result(run: Path, seed: int, curve: dict[str, Any]) -> None:
    """Add one seed's curve."""
    from machine import stamp

    seeds = results(run) | {str(seed): curve}
    document = {"run": run.stem, "run_file": run.read_text(), "machine": stamp(), "seeds": dict(sorted(seeds.items()))}
    RESULTS.mkdir(exist_ok=True)
    result_file(run).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
