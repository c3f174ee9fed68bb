"""Run a study, or what is left of it: strategies of credit under one recipe and several seeds.

    python experiments/run.py experiments/runs/short.toml

The file says what is run (`flowtracer/study/matrix.py`). Each run is a process of its own on one core, in
`runs/experiments/STUDY/LABEL/seed-N`; what is done stands in `experiments/results/STUDY.json`, and the same command may
be killed and given again. `report.py` makes tables and pictures of the results.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flowtracer.errors import FlowTracerError
from flowtracer.study.matrix import read_study
from flowtracer.study.results import Curve
from flowtracer.study.runner import Job, run_study

RESULTS = Path(__file__).with_name("results")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


def main() -> int:
    """Run what is missing; 1 if a run failed, 2 for a mistake in what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="+", help="TOML files")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"), help="where runs keep what they write")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where STUDY.json goes")
    options = parser.parse_args()
    from machine import stamp

    try:
        failed = [
            failure
            for study in [read_study(path) for path in options.study]
            for failure in run_study(
                study,
                results=options.results / f"{study.name}.json",
                work=options.work,
                machine=stamp(),
                jobs=options.jobs,
                on_done=say,
            )
        ]
    except FlowTracerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for job, error in failed:
        print(f"{job.label} seed {job.seed} failed: {error}; see {job.folder}.out", file=sys.stderr)
    return 1 if failed else 0


def say(job: Job, curve: Curve) -> None:
    """One line for a run that is done."""
    print(f"{job.study.name}: {job.label} seed {job.seed}: held-out {curve['held_out'][-1][1]:.1%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
