"""Many stored rollouts by Ray: two actors against one, a worker that is killed, and the driver's memory.

    python benchmarks/stored_rollouts.py [--parts workers,kill,memory]

nano traces worked responses to planted problems, about a hundred tokens each. *Workers*: the same rollouts by one actor
and by two, each of one core, from the first part to the last, so that starting Ray and loading the model are left out.
*Kill*: two actors, one of which is killed after two parts; what the tables then hold. *Memory*: resident memory of the
driver at its highest, over inputs of growing length. There only the first so many rollouts have an answer; all others
are read, sent, tokenised and written as rows with their reason, without a forward each.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from flowtracer.study.machine import stamp
from flowtracer.tasks import Planted
from flowtracer.trace.rollout_table import read_rows
from flowtracer.tracing.job import TraceJob
from flowtracer.tracing.parts import finish_parts, part_files
from flowtracer.tracing.ray_engine import trace_with_ray

WINDOW = 64
"""Rollouts of a part; fewer than usual, so that two actors end close to each other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="workers,kill,memory")
    parser.add_argument("--rollouts", type=int, default=2_000)
    parser.add_argument("--lengths", default="2000,20000,100000", help="of the inputs whose memory is measured")
    parser.add_argument("--answered", type=int, default=500, help="rollouts that are traced there")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stored_rollouts.json"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the actors, however many cores each may have
    import ray

    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    for part in options.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            load = [os.getloadavg()[0]]
            measured = PARTS[part](Path(folder), options)
            load.append(os.getloadavg()[0])
        result[part] = {**measured, "machine": stamp(), "load": [round(value, 1) for value in load]}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    ray.shutdown()
    show(result)


def workers(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a rollout by one actor and by two."""
    file = write(folder / "rollouts.jsonl", options.rollouts)
    rows = []
    for actors in (1, 2):
        times = []
        for part in trace_with_ray(job(file, folder / f"out-{actors}"), actors):
            times.append((time.perf_counter(), part.made))
        # The first part of each actor began before anything was heard.
        counted = sum(made for _, made in times[actors:])
        seconds = times[-1][0] - times[actors - 1][0]
        rows.append({"actors": actors, "rollouts": counted, "seconds": seconds, "rollouts_a_second": counted / seconds})
    one, two = (row["rollouts_a_second"] for row in rows)
    return {"rows": rows, "efficiency": two / (2 * one)}


def kill(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What stands in the tables after a worker has been killed."""
    file = write(folder / "rollouts.jsonl", options.rollouts)
    names = []
    for part in trace_with_ray(job(file, folder / "out"), 2):
        names.append(part.name)
        if len(names) == 2:
            own = psutil.Process().children(recursive=True)
            next(child for child in own if "_Worker" in " ".join(child.cmdline())).kill()
    summary = finish_parts(folder / "out", names)
    seen = Counter(row["id"] for row in read_rows(part_files(folder / "out"), ["id"]))
    return {
        "rollouts": options.rollouts,
        "traced": summary.traced,
        "lost": sum(f"r{n}" not in seen for n in range(options.rollouts)),
        "twice": sum(count > 1 for count in seen.values()),
        "parts_twice": len(names) - len(set(names)),
    }


def memory(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Memory of the driver over inputs of growing length."""
    rows = []
    for length in map(int, options.lengths.split(",")):
        file = write(folder / f"{length}.jsonl", length, answered=options.answered)
        with peak() as high:
            names = [part.name for part in trace_with_ray(job(file, folder / str(length)), 2)]
            summary = finish_parts(folder / str(length), names)
        rows.append({"rollouts": summary.rollouts, "traced": summary.traced, "driver_mib": round(high[0] / 2**20, 1)})
    return {"rows": rows}


PARTS = {"workers": workers, "kill": kill, "memory": memory}


def write(file: Path, count: int, answered: int | None = None) -> Path:
    """Worked responses, those after the first `answered` cut off before their answer."""
    task = Planted(chains=3, length=4)
    problems = task.problems("test", min(count, 2_000))
    with file.open("w", encoding="utf-8") as lines:
        for n in range(count):
            problem = problems[n % len(problems)]
            response = task.work(problem, seed=n // len(problems)).text
            if answered is not None and n >= answered:
                response = response.partition("<answer>")[0]
            record = {"id": f"r{n}", "prompt": problem.prompt, "response": response, "reward": n % 2}
            lines.write(json.dumps(record) + "\n")
    return file


def job(file: Path, out: Path) -> TraceJob:
    return TraceJob(
        rollouts=str(file),
        limit=None,
        out=out,
        options={"rollouts": str(file)},
        model="nano",
        device="cpu",
        dtype=None,
        tracer={},
        max_tokens=4096,
        measure=nothing,
        keep_traces=False,
        window=WINDOW,
    )


def nothing(_: Any) -> None:
    """No more is measured of a trace."""


@contextmanager
def peak() -> Iterator[list[int]]:
    """Resident memory of this process at its highest, looked at twenty times a second."""
    high, done = [0], threading.Event()

    def look() -> None:
        own = psutil.Process()
        while not done.wait(0.05):
            high[0] = max(high[0], own.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield high
    finally:
        done.set()
        thread.join()


def show(result: dict[str, Any]) -> None:
    table = Table("", "", "")
    for row in result.get("workers", {}).get("rows", ()):
        table.add_row("actors", str(row["actors"]), f"{row['rollouts_a_second']:.1f} rollouts a second")
    if "workers" in result:
        table.add_row("", "efficiency", f"{result['workers']['efficiency']:.0%}")
    for name in ("rollouts", "traced", "lost", "twice", "parts_twice"):
        if "kill" in result:
            table.add_row("a worker killed", name, str(result["kill"][name]))
    for row in result.get("memory", {}).get("rows", ()):
        table.add_row("memory", f"{row['rollouts']:,}", f"{row['driver_mib']} MiB")
    Console().print(table)


if __name__ == "__main__":
    main()
