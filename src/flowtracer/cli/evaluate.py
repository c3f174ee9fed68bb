"""`flowtracer eval`: how good a model is on benchmarks."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from flowtracer.cli.console import AsJson, console, print_json, progress, say_written
from flowtracer.cli.options import ANSWER_PATTERN
from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.folders import lock

if TYPE_CHECKING:
    from flowtracer.evaluation.folder import Draw, EvaluationFolder, Responder
    from flowtracer.evaluation.loading import Suite
    from flowtracer.evaluation.pool import GradingPool
    from flowtracer.evaluation.summary import BenchmarkResult

USUAL = (0.6, 0.95)
"""Temperature and top_p of several samples, as DeepSeek-R1 and Qwen3 are evaluated."""


def evaluate(
    benchmarks: Annotated[
        list[str] | None, typer.Argument(help="gsm8k, aime24 ..., NAME=FILE, FILE, countdown:max_numbers=3 ...")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for responses and summary.json.")] = Path("runs/eval"),
    model: Annotated[str | None, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')] = None,
    responses: Annotated[Path | None, typer.Option(help="Grade this file's responses instead.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses to each problem.")] = 1,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy: so for one sample; 0.6 for several.")] = None,
    top_p: Annotated[float, typer.Option(help="Nucleus of sampling.")] = USUAL[1],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 1024,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems of each.")] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
    instruction: Annotated[str | None, typer.Option(help="Follows each question; the benchmark's own.")] = None,
    answer_pattern: Annotated[str | None, typer.Option(help=ANSWER_PATTERN)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses at a time.")] = 32,
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = min(4, os.cpu_count() or 1),
    time_limit: Annotated[float, typer.Option(help="Seconds to grade one response.")] = 10.0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on benchmarks: avg@k and pass@k with intervals.

    Responses that OUT already holds are not sampled again; more problems or samples add to them.
    """
    from flowtracer.evaluation.folder import EvaluationFolder, by_model, draws_of
    from flowtracer.evaluation.loading import load_suite
    from flowtracer.evaluation.pool import GradingPool
    from flowtracer.model.generate import Sampling
    from flowtracer.model.load import load_model, model_digest

    if responses is not None:
        results = _grade_file(responses, benchmarks or [], out, limit, answer_pattern, workers, time_limit)
        _report(out, results, as_json=as_json)
        return
    if model is None or not benchmarks:
        raise InputError("expected benchmarks and --model, or --responses with a file to grade; see --help")
    heat = temperature if temperature is not None else (0.0 if samples == 1 else USUAL[0])
    if heat == 0 and samples > 1:
        raise InputError(f"expected one sample with temperature 0, where all are the same, got --samples {samples}")
    sampling = Sampling(temperature=heat, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed)
    with console.status("loading problems"):
        suites = [load_suite(name, limit=limit, instruction=instruction) for name in benchmarks]
    _check(suites, answer_pattern)
    options = {"model": model, "dtype": dtype, "instruction": instruction, "temperature": heat, "top_p": top_p}
    options |= {"max_new_tokens": max_new_tokens, "seed": seed, "time_limit": time_limit}
    with lock(out):
        with console.status(f"loading {model}"):
            loaded = load_model(model, device=device, dtype=dtype)
        digest = model_digest(model, loaded[0])
        folder = EvaluationFolder(out, options, model=digest, answer_pattern=answer_pattern)
        responder = by_model(*loaded, sampling, batch_size=batch_size)
        asked = [(suite, responder, draws_of(suite, samples)) for suite in suites]
        with GradingPool(workers=workers, limit=time_limit) as pool:
            _run(folder, asked, pool)
        results = _results(folder, [(suite, draws, {}) for suite, _, draws in asked])
    _report(out, results, as_json=as_json)


def _grade_file(
    file: Path,
    names: Sequence[str],
    out: Path,
    limit: int | None,
    answer_pattern: str | None,
    workers: int,
    time_limit: float,
) -> list[BenchmarkResult]:
    from flowtracer.evaluation import BENCHMARKS
    from flowtracer.evaluation.folder import EvaluationFolder
    from flowtracer.evaluation.joining import joined_to
    from flowtracer.evaluation.loading import is_path
    from flowtracer.evaluation.pool import GradingPool
    from flowtracer.evaluation.responses import as_given, load_responses

    asked = names[0] if names else ""
    name = asked.partition("=")[0]
    if len(names) > 1 or (asked and name not in BENCHMARKS and not is_path(asked)):
        raise InputError(
            f"expected one benchmark out of {', '.join(BENCHMARKS)}, NAME=FILE or a file of problems beside "
            f"--responses, got {', '.join(names)}"
        )
    rule = BENCHMARKS[name].rule if name in BENCHMARKS else None
    title = name if rule is not None else Path(asked or file).name.split(".")[0]
    given = load_responses(file, name=title, rule=rule, limit=limit, join=joined_to(asked) if asked else None)
    _check([given.suite], answer_pattern)
    with lock(out), GradingPool(workers=workers, limit=time_limit) as pool:
        options = {"responses": str(file), "rule": rule, "time_limit": time_limit}
        folder = EvaluationFolder(out, options, answer_pattern=answer_pattern)
        _run(folder, [(given.suite, as_given, given.draws)], pool)
        return _results(folder, [(given.suite, given.draws, given.labels)])


def _check(suites: Sequence[Suite], answer_pattern: str | None) -> None:
    """Everything that a long run would stumble over later."""
    from flowtracer.evaluation.folder import refuse_pattern
    from flowtracer.evaluation.grading import BY_MATH_VERIFY
    from flowtracer.text.answer import check_pattern

    check_pattern(answer_pattern)
    for suite in suites:
        refuse_pattern(suite, answer_pattern)
    names = [suite.name for suite in suites]
    if len(set(names)) < len(names):
        raise InputError(f"expected each benchmark once, got {', '.join(names)}; evaluate them in folders of their own")
    rules = {problem.facts.get("rule") for suite in suites for problem in suite.problems}
    if rules & BY_MATH_VERIFY and importlib.util.find_spec("math_verify") is None:
        raise MissingDependencyError(
            'expected math-verify to grade mathematics, got none: pip install "flowtracer[eval]"'
        )
    for suite in suites:
        for item in suite.skipped:
            text = f"skipped {item.id}: {item.reason}: {item.message}"
            console.print(Text(text, style="yellow"), soft_wrap=True)


def _run(folder: EvaluationFolder, asked: Sequence[tuple[Suite, Responder, Sequence[Draw]]], pool: GradingPool) -> None:
    for suite, responder, draws in asked:
        with progress(suite.name, len(draws)) as bar:
            for done in folder.run(suite, responder, pool, draws=draws):
                bar.advance(bar.task_ids[0], done)


def _results(
    folder: EvaluationFolder, asked: Sequence[tuple[Suite, Sequence[Draw], Mapping[tuple[str, int], bool]]]
) -> list[BenchmarkResult]:
    results = [folder.result(suite, draws, labels) for suite, draws, labels in asked]
    folder.write_summary(results)
    return results


def _report(out: Path, results: Sequence[BenchmarkResult], *, as_json: bool) -> None:
    from flowtracer.report.terminal.evaluation import benchmark_tables

    if as_json:
        print_json([asdict(result) for result in results])
    else:
        for table in benchmark_tables(results):
            console.print(table)
    say_written(out)
