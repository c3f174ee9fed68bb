"""What holds of any input whatever: a law draws its input from a `random.Random`, and fails by an exception.

`test_laws.py` tries each with hypothesis, which shrinks what it finds; `run.py` tries a million.
"""

import gzip
import json
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flowtracer.checks.masking.answers import Asking, same_answer
from flowtracer.errors import FlowTracerError, FormatError, InputError
from flowtracer.evaluation.base import Answered
from flowtracer.evaluation.equality import plain, written_alike
from flowtracer.evaluation.grading import grade
from flowtracer.evaluation.loading import read_question
from flowtracer.evaluation.responses import _posed
from flowtracer.folders import LineFile, as_lines, claim
from flowtracer.report.page.html import trace_page
from flowtracer.rl.run import RunFile, read_run_file, tomllib
from flowtracer.study.matrix import read_study
from flowtracer.tasks import TASKS, Problem, Verdict
from flowtracer.text.answer import Answer, Miss, boxes, first_box, locate_answer, opening_of
from flowtracer.text.cue import cue_of
from flowtracer.text.numbers import number, numerals, parse_number
from flowtracer.text.printable import one_line
from flowtracer.text.steps import split_steps
from flowtracer.text.words import split_words
from flowtracer.trace import Rollout, Skipped, Trace, load_trace
from flowtracer.trace import trace as trace_module
from flowtracer.trace.records import BadRecord, read_rollouts, safe_name
from hostile import damaged, record, text, value
from traces import make_trace

Law = Callable[[Random, Path], None]
"""Draws its input, may write in a folder of its own, and asserts."""


def answer(random: Random, folder: Path) -> None:
    """An answer is what stands there, or its absence has a name."""
    response = text(random)
    for found in (locate_answer(response), locate_answer(response, "7"), first_box(response)):
        if isinstance(found, Miss):
            assert found.message.startswith("expected")
            continue
        assert response[found.span.start : found.span.stop] == found.text
        assert 0 <= opening_of(response, found.span) <= found.span.start <= found.span.stop <= len(response)
        cue = cue_of(response, found.span)
        assert 0 <= cue.start <= cue.stop == found.span.start


def given_answer(random: Random, folder: Path) -> None:
    """An answer that is given is found where it stands alone."""
    wanted = random.choice(["7", "x + 1", "十二", "é", "\\frac{1}{2}", "A", "(", "-8"])
    found = locate_answer(f"{text(random)}\n{wanted}\n{text(random)}", wanted)
    assert isinstance(found, Answer)
    assert found.text == wanted


def parts(random: Random, folder: Path) -> None:
    """Steps tile a text; words, numbers and boxes stand in order within it."""
    response = text(random)
    steps = split_steps(response)
    assert "".join(response[step.start : step.stop] for step in steps) == response
    words = [word.span for word in split_words(response)]
    assert all(one.stop <= other.start for one, other in pairwise(words))
    assert all(response[word.start : word.stop].strip() for word in words)
    stops = [numeral.stop for numeral in numerals(response)]
    assert stops == sorted(set(stops))
    assert all(one.stop < other.start for one, other in pairwise(boxes(response))), "no box within another"
    assert one_line(response).isprintable()


def names(random: Random, folder: Path) -> None:
    """A file's name out of data stays in its folder, and is another for another text."""
    one, other = text(random, 4), text(random, 4)
    first, second = safe_name(one), safe_name(other)
    assert (folder / f"{first}.safetensors").resolve().parent == folder.resolve()
    assert first.isascii()
    assert not first.startswith((".", "-"))
    assert len(first) < 80
    assert one == other or first.lower() != second.lower()


def lines(random: Random, folder: Path) -> None:
    """A line of JSONL is a rollout or has a reason, whatever stands in it."""
    records = [json.dumps(record(random)) for _ in range(random.randint(1, 4))]
    file = folder / "r.jsonl"
    file.write_bytes(damaged(random, "\n".join(records).encode()))
    for found in read_rollouts(file):
        _check_read(found)


def records(random: Random, folder: Path) -> None:
    """A record is a problem or is left out by name; so are responses with their gold answers."""
    found = record(random)
    try:
        assert read_question(found, "r:1").gold
    except BadRecord as error:
        assert error.skipped("r:1").message.startswith("expected")
    file = folder / "r.json"
    file.write_text(json.dumps([found]))
    for posed in _posed(read_rollouts(file), "r", None, lambda question: None):
        assert isinstance(posed, Skipped) or posed[0].gold


def files(random: Random, folder: Path) -> None:
    """A damaged file is refused as a whole, or what is left of it is read."""
    rows = [{"prompt": "p", "response": f"r{n}" * 20, "n": n} for n in range(4)]
    kind = random.choice(["r.jsonl.gz", "r.json", "r.parquet"])
    file = folder / kind
    if kind == "r.parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
        content = file.read_bytes()
    else:
        content = json.dumps(rows).encode() if kind == "r.json" else gzip.compress(as_lines(rows).encode(), mtime=0)
    file.write_bytes(damaged(random, content))
    try:
        for found in read_rollouts(file):
            _check_read(found)
    except (FormatError, InputError) as error:
        assert "expected" in str(error)


def _check_read(found: Rollout | Skipped) -> None:
    if isinstance(found, Skipped):
        assert found.message.startswith("expected")
        assert found.reason.isidentifier()
    else:
        found.response.encode()
        json.dumps(dict(found.metadata), allow_nan=False)


def damaged_trace(random: Random, folder: Path) -> None:
    """A trace that was damaged is refused."""
    whole = make_trace(metadata={"id": text(random, 4)}).save(folder / "t.safetensors").read_bytes()
    content = damaged(random, whole)
    (folder / "t.safetensors").write_bytes(content)
    try:
        load_trace(folder / "t.safetensors")
    except FormatError as error:
        assert "expected" in str(error)
    else:
        assert content == whole


def forged_trace(random: Random, folder: Path) -> None:
    """A trace whose digest is right but whose content is anything is refused, or can be looked at."""
    trace = make_trace()
    header, arrays = trace_module._header(trace), trace_module._arrays(trace)
    for _ in range(random.randint(1, 2)):
        if random.random() < 0.5:
            header[random.choice(list(header))] = value(random, 2)
        else:
            arrays[random.choice(list(arrays))] = _array(random)
    file = folder / "t.safetensors"
    file.write_bytes(trace_module._signed(header, arrays))
    try:
        found = load_trace(file)
    except FormatError as error:
        assert "expected" in str(error)
        return
    assert isinstance(found, Trace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its flow need not be conserved
        found.hubs(3, prompt=True)
        found.paths(2)
        found.backbone(0.5)
        found.steps()
        found.summary()
    json.dumps(found.to_dict())
    repr(found)
    if random.random() < 0.1:  # the whole page takes as long as all the rest
        trace_page(found)


def _array(random: Random) -> np.ndarray:
    shape = [random.randint(0, 5) for _ in range(random.randint(0, 3))]
    dtype = random.choice([np.int64, np.int16, np.float64, np.float32, np.bool_])
    numbers = [random.choice([0, 1, 2, 3, 4, 99, -1, 0.5, float("nan"), float("inf")]) for _ in range(64)]
    with np.errstate(invalid="ignore"):
        return np.resize(np.array(numbers), shape).astype(dtype)


RUN_FILE = b"""model = "nano"
output_dir = "runs/a"
seed = 3
[task]
name = "countdown"
problems = 64
options = { max_numbers = 3 }
[credit]
name = "flow"
generation_bytes = "4GiB"
[grpo]
max_steps = 2
[evaluation]
problems = 20
split = "test"
"""

STUDY_FILE = b"""model = "nano"
[matrix]
seeds = 2
credit = [{ name = "uniform" }, { name = "flow", grid = { ratio = [0.2, 0.6] } }]
[task]
name = "planted"
[evaluation]
problems = 20
"""


def run_files(random: Random, folder: Path) -> None:
    """A run file or a study's file is read, or refused by name."""
    file = folder / "run.toml"
    content = random.choice([RUN_FILE, STUDY_FILE])
    if random.random() < 0.5:
        lines = content.splitlines()
        place = random.randint(0, len(lines) - 1)
        name = lines[place].split(b"=")[0].strip(b"[] ")
        lines[place] = name + b" = " + json.dumps(value(random, 2)).encode()
        file.write_bytes(b"\n".join(lines))
    else:
        file.write_bytes(damaged(random, content))
    for read in (read_run_file, read_study):
        try:
            found = read(file)
        except InputError as error:
            assert "expected" in str(error)
        else:
            assert isinstance(found, RunFile) or found.runs
            tomllib.loads(file.read_text())


def output_folders(random: Random, folder: Path) -> None:
    """What stands in an output folder is read, or refused by name."""
    rows = [{"key": f"k{n}", "found": text(random, 3)} for n in range(3)]
    (folder / "lines.jsonl").write_bytes(damaged(random, as_lines(rows).encode()))
    (folder / "options.json").write_bytes(damaged(random, json.dumps({"model": "nano", "seed": 0}).encode()))
    for read in (LineFile(folder / "lines.jsonl").lines, lambda: LineFile(folder / "lines.jsonl").by("key")):
        try:
            read()
        except FormatError as error:
            assert "expected" in str(error)
    try:
        claim(folder, {"model": "nano", "seed": 0})
    except FlowTracerError as error:
        assert "expected" in str(error)


def verdicts(random: Random, folder: Path) -> None:
    """A task judges any response."""
    for task, problem in PROBLEMS.items():
        for response in (text(random), f"<answer>{text(random)}</answer>"):
            verdict = TASKS[task]().verify(problem, response)
            assert isinstance(verdict, Verdict)
            assert not verdict.correct or locate_answer(response)


PROBLEMS: Mapping[str, Problem] = {name: TASKS[name]().problems("test", 1)[0] for name in sorted(TASKS)}


def grades(random: Random, folder: Path) -> None:
    """Grading without algebra takes any answer; an answer is the same as itself, and sameness has two sides."""
    gold, given = text(random), text(random)
    for rule in ("number", "choice"):
        assert grade(Answered(rule=rule, gold=gold, response=given, options={"A": gold}, finished=True)).reason
    assert not plain(given) or written_alike(given, given)
    assert written_alike(gold, given) == written_alike(given, gold)
    for numeric in (False, True):
        assert same_answer(gold, given, numeric=numeric) == same_answer(given, gold, numeric=numeric)
    if isinstance(found := locate_answer(given), Answer):
        asking = Asking.after(found)
        asking.complete(gold)
        asking.read(gold)
    for read in (number, parse_number):
        assert (read(given) or 0) * 0 == 0


LAWS: Mapping[str, Law] = {
    law.__name__: law
    for law in (
        *(answer, given_answer, parts, names, lines, records, files, damaged_trace, forged_trace),
        *(run_files, output_folders, verdicts, grades),
    )
}
