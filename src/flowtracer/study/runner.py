"""Run what a study still lacks, each run a process of its own.

1. A run whose curve stands in the results is skipped.
2. Others are trained in `WORK/STUDY/LABEL/seed-N`, seed by seed, so that a study that was interrupted has compared all
   runs under the seeds that it has done. A run that was interrupted goes on from its last checkpoint.
3. A run that is done adds its curve to the results; its log and last weights stay in its folder.

Two runs on two cores are faster than one after the other on both, so every process gets one thread. One runner at a
time works on a study. A run that a killed runner left behind still holds its folder: the next one waits for it and
finds its work done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtracer.folders import claim, lock
from flowtracer.rl.run import train
from flowtracer.study.matrix import Study, read_study
from flowtracer.study.results import RunCurves, open_results, options_of, read_curve, save_results


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run under one seed."""

    study: Study
    label: str
    seed: int
    folder: Path
    """Where it keeps checkpoints, log and weights."""


Launch = Callable[[Job], None]


def run_study(
    study: Study,
    *,
    results: Path,
    work: Path,
    machine: Mapping[str, Any],
    jobs: int = 1,
    launch: Launch | None = None,
    on_done: Callable[[Job, RunCurves], None] | None = None,
) -> list[tuple[Job, Exception]]:
    """Run what is missing; returns the runs that failed, the others having gone on.

    Args:
        study: What to run.
        results: File of the results.
        work: Folder of the runs' folders.
        machine: Where this happens; stands beside every curve.
        jobs: Runs at a time.
        launch: Trains one run; in a process of its own unless given.
        on_done: Called with every run that is done, and its curve.

    Raises:
        InputError: Results or folders were made with other options, or another process runs this study.
    """
    with lock(work / study.name):
        return _run_missing(study, results, work, machine, jobs, launch or in_own_process, on_done)


def _run_missing(
    study: Study,
    results: Path,
    work: Path,
    machine: Mapping[str, Any],
    jobs: int,
    launch: Launch,
    on_done: Callable[[Job, RunCurves], None] | None,
) -> list[tuple[Job, Exception]]:
    document = open_results(results, study)
    missing = [
        Job(study=study, label=label, seed=seed, folder=work / study.name / label / f"seed-{seed}")
        for seed in study.seeds
        for label in study.runs
        if str(seed) not in document["runs"][label]["seeds"]
    ]
    failed: list[tuple[Job, Exception]] = []
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(launch, job): job for job in missing}
        for future in as_completed(futures):
            job = futures[future]
            error = future.exception()
            if isinstance(error, Exception):
                failed.append((job, error))
                continue
            future.result()  # what ends the program ends it here too
            curve = read_curve(job.folder / "log.jsonl")
            document["runs"][job.label]["seeds"][str(job.seed)] = {"machine": dict(machine), **curve}
            save_results(results, document)
            if on_done is not None:
                on_done(job, curve)
    return failed


def in_own_process(job: Job) -> None:
    """Train in a process with one thread; what it prints goes to `seed-N.out`.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    printed = job.folder.with_suffix(".out")
    printed.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "flowtracer.study.runner", str(job.study.file), job.label, str(job.seed)]
    with printed.open("a") as file:
        subprocess.run(  # noqa: S603 - this very module
            [*command, str(job.folder)],
            check=True,
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def train_job(job: Job) -> None:
    """Train one run to its end, from wherever it stands.

    Raises:
        InputError: The folder holds a run of other options, or an option does not exist.
    """
    claim(job.folder.parent, options_of(job.study, job.label))  # the same for all seeds
    train(job.study.run(job.label, job.seed, job.folder), wait=True)
    for checkpoint in job.folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


if __name__ == "__main__":
    file, label, seed, folder = sys.argv[1:]
    train_job(Job(study=read_study(file), label=label, seed=int(seed), folder=Path(folder)))
