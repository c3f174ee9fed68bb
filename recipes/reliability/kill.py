"""Kill every command at random moments, start it again until it is done, and compare with a run that nobody killed.

    python recipes/reliability/kill.py                        # all commands; the better part of an hour on two cores
    python recipes/reliability/kill.py --only trace --kills 5
    python recipes/reliability/kill.py --interrupt            # Ctrl-C twice instead, the second soon after the first

1. Each command runs once to its end: what it leaves is the truth.
2. In a folder of its own it is started and killed (SIGKILL) at a random moment after it has taken hold of its folder,
   the process alone or with all that it started, again and again; where it ends before its moment, the next folder
   begins. After the last kill it runs to its end.
3. What it leaves must be what the undisturbed run left: the same rows, none twice and none missing, the same bytes of
   weights, traces and figures. Only times may differ.

Writes kills.json and kills.md beside this file. Exits with 1 where anything differed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLI = [sys.executable, "-c", "from flowtracer.cli import main; main()"]
TIMES = re.compile(r"time|seconds|per_second|flos|train_loss")
"""Fields of JSON that say how long something took, or of a last line over the steps since the last start alone."""

TASK = "planted:chains=2,length=3"
RUN = """
model = "nano"
output_dir = "{out}"
[task]
name = "countdown"
problems = 32
options = {{ brief = true, max_numbers = 3 }}
[evaluation]
problems = 16
every = 3
max_new_tokens = 48
[traces]
every = 3
prompts = 1
[grpo]
max_steps = 6
num_generations = 4
per_device_train_batch_size = 8
max_completion_length = 48
learning_rate = 1e-4
save_steps = 1
"""
STUDY = """
model = "nano"
[matrix]
seeds = 1
credit = [{ name = "uniform" }, { name = "flow" }]
[task]
name = "countdown"
problems = 16
options = { brief = true, max_numbers = 3 }
[evaluation]
problems = 16
every = 2
max_new_tokens = 48
[grpo]
max_steps = 4
num_generations = 4
per_device_train_batch_size = 8
max_completion_length = 48
save_steps = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to kill."""

    kills: int
    """How many by default: few where a run takes minutes."""
    arguments: Callable[[Path, Path], list[str]]
    """Given the folder of the inputs and that of the output."""
    held: str = "."
    """What it locks, within its output."""
    unlike: tuple[str, ...] = ()
    """Files that are not compared, as patterns of their paths: scratch, and files whose every byte holds a time."""


def _on_rollouts(name: str, *more: str) -> Callable[[Path, Path], list[str]]:
    """A command over stored rollouts."""
    return lambda inputs, out: [*(name, str(inputs / "rollouts.jsonl"), "--model", "nano", "--out", str(out), *more)]


def _on_task(*command: str) -> Callable[[Path, Path], list[str]]:
    """A command that samples by itself."""
    return lambda _, out: [*command, "--model", "nano", "--out", str(out)]


COMMANDS = {
    "trace": Command(kills=20, arguments=_on_rollouts("trace", "--show", "0")),
    "eval": Command(
        kills=20,
        arguments=_on_task(
            *("eval", TASK, "--limit", "80", "--batch-size", "8", "--max-new-tokens", "64", "--workers", "1")
        ),
    ),
    "mask": Command(kills=20, arguments=_on_rollouts("mask", "--limit", "12")),
    "train": Command(
        kills=12,
        arguments=lambda inputs, out: ["train", str(_write(inputs / f"{out.name}.toml", RUN.format(out=out)))],
        unlike=("checkpoint-*", "README.md", "final/training_args.bin", "finished.json"),
    ),
    "meter": Command(
        kills=8,
        arguments=_on_task(
            *("meter", "--task", TASK, "--credit", "uniform,flow,position", "--rollouts", "64"),
            *("--minibatches", "3", "--batch", "16", "--group", "4", "--max-new-tokens", "64"),
        ),
        unlike=("meter.html",),
    ),
    "study": Command(
        kills=6,
        arguments=lambda inputs, out: [
            *("study", str(_write(inputs / "small.toml", STUDY)), "--jobs", "1"),
            *("--work", str(out / "work"), "--results", str(out)),
        ],
        held="work/small",
        unlike=("work/small/*/*/README.md", "*.out", "*training_args.bin", "*finished.json", "*checkpoint-*"),
    ),
    "demo": Command(
        kills=4,
        arguments=lambda _, out: ["demo", "--quick", "--out", str(out)],
        held="quick",
        unlike=("quick/train/checkpoint-*", "*README.md", "*training_args.bin", "*finished.json"),
    ),
}


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of killing one command."""

    kills: int = 0
    finished: int = 0
    """Folders in which it came to its end and was compared."""
    files: int = 0
    """Compared in each."""
    seconds: float = 0.0
    """Of the undisturbed run."""
    moments: list[float]
    """When it was killed, in seconds after it took hold of its folder."""
    different: list[str]
    """Files that differed, were missing or should not have been there."""


def main() -> int:
    """Kill, compare, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(COMMANDS), help="commands, separated by commas")
    parser.add_argument("--kills", type=int, help="of each command; its own number without")
    parser.add_argument("--interrupt", action="store_true", help="SIGINT twice instead of SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--results", type=Path, help="where earlier results are added to; beside this file without")
    options = parser.parse_args()
    end = interrupt if options.interrupt else kill
    options.results = options.results or HERE / f"{end.__name__}s.json"
    os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    document = json.loads(options.results.read_text()) if options.results.exists() else {}
    failed = False
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            count = options.kills or COMMANDS[name].kills
            tally = torment(COMMANDS[name], Path(folder), count, random.Random(f"{options.seed}-{name}"), end)
        document[name] = asdict(tally)
        failed |= bool(tally.different)
        _write(options.results, json.dumps(document, indent=1) + "\n")
        _write(options.results.with_suffix(".md"), table(document))
        print(name, tally, flush=True)
    return int(failed)


End = Callable[[subprocess.Popen[bytes], random.Random], None]
"""Ends a process before its time."""


def torment(command: Command, folder: Path, kills: int, chance: random.Random, end: End) -> Tally:
    """Kill a command so many times, and compare what is left whenever it has come to its end."""
    inputs = folder / "inputs"
    inputs.mkdir()
    make_rollouts(inputs / "rollouts.jsonl")
    started = time.perf_counter()
    work = undisturbed(command, inputs, folder / "whole")
    whole = contents(folder / "whole", command.unlike)
    tally = Tally(moments=[], different=[], files=len(whole), seconds=round(time.perf_counter() - started, 1))
    while not tally.finished or tally.kills < kills:
        out = folder / f"killed-{tally.finished}"
        while tally.kills < kills and (moment := cut_short(command, inputs, out, chance, work, end)) is not None:
            tally.kills += 1
            tally.moments.append(round(moment, 2))
            print(f"{tally.kills} of {kills}", flush=True)
        run_to_end(command.arguments(inputs, out))
        tally.finished += 1
        tally.different += differences(whole, contents(out, command.unlike))
        shutil.rmtree(out)
    return tally


def run_to_end(arguments: Sequence[str]) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")


def undisturbed(command: Command, inputs: Path, out: Path) -> float:
    """Run a command to its end; returns the seconds from its taking hold of its folder."""
    process = start(command, inputs, out)
    wait_for_hold(process, out / command.held)
    started = time.perf_counter()
    if process.wait():
        raise SystemExit(f"{' '.join(command.arguments(inputs, out))} ended with {process.returncode}")
    return time.perf_counter() - started


def start(command: Command, inputs: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that all that it starts can be killed with it."""
    line = [*CLI, *command.arguments(inputs, out)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for_hold(process: subprocess.Popen[bytes], held: Path) -> None:
    """Until a process has taken hold of its folder, or ended."""
    mark = held / ".lock.pid"
    while process.poll() is None:
        if mark.exists() and mark.read_text().strip() == str(process.pid):
            return
        time.sleep(0.01)


def cut_short(command: Command, inputs: Path, out: Path, chance: random.Random, work: float, end: End) -> float | None:
    """Start a command and end it at a random moment, which is returned; None where it was done before."""
    moment = chance.uniform(0, work)
    process = start(command, inputs, out)
    wait_for_hold(process, out / command.held)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        end(process, chance)
        process.wait()
        return moment
    return None


def kill(process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """SIGKILL, to the process alone, whose children it leaves behind, or to all of them."""
    if chance.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def interrupt(process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """SIGINT twice, as a terminal sends it: to the process and all that it has started."""
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(chance.uniform(0, 0.2))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def make_rollouts(file: Path, count: int = 48) -> None:
    """Worked responses to planted problems, among lines that are none."""
    from flowtracer.tasks import Planted

    task = Planted(chains=2, length=3)
    lines = []
    for number, problem in enumerate(task.problems("test", count)):
        lines.append({"id": problem.id, "prompt": list(problem.prompt), "gold": problem.gold})
        lines[-1]["response"] = task.work(problem).text
        if number % 20 == 0:
            lines.append({"no": "rollout", "number": number})
    _write(file, "".join(json.dumps(line) + "\n" for line in lines))


def contents(folder: Path, unlike: Sequence[str]) -> dict[str, Any]:
    """What a folder holds by path, times left out; lines of JSON as what they say, however they are ordered."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        passed_over = any(Path(name).match(pattern) or name.startswith(pattern.rstrip("*")) for pattern in unlike)
        if not path.is_file() or path.name.startswith(".") or passed_over:
            continue
        if path.suffix == ".jsonl":
            found[name] = Counter(json.dumps(timeless(json.loads(line)), sort_keys=True) for line in path.open())
        elif path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text()), str(folder))
        else:
            found[name] = path.read_bytes()
    return found


def timeless(value: Any, folder: str = "") -> Any:
    """A JSON value without what says how long something took, and without the folder's own name."""
    if isinstance(value, dict):
        return {key: timeless(inner, folder) for key, inner in value.items() if not TIMES.search(key)}
    if isinstance(value, list):
        return [timeless(inner, folder) for inner in value]
    return value.replace(folder, "") if isinstance(value, str) and folder else value


def differences(whole: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Paths that only one has, or that differ."""
    return sorted(name for name in whole.keys() | other.keys() if whole.get(name) != other.get(name))


def table(document: dict[str, Any]) -> str:
    """What came of it, in Markdown."""
    lines = [
        "| command | kills | runs that came to their end | files compared in each | different | seconds undisturbed |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, tally in document.items():
        different = ", ".join(sorted(set(tally["different"]))) or "none"
        counts = f"{tally['kills']} | {tally['finished']} | {tally['files']}"
        lines.append(f"| `{name}` | {counts} | {different} | {tally['seconds']} |")
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


if __name__ == "__main__":
    sys.exit(main())
