"""`flowtracer mask`: the causal check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowtracer.cli.console import AsJson, console, print_json, progress, say_written, warn
from flowtracer.cli.options import ANSWER_PATTERN, READ_AHEAD, parse_shares, read_ahead, refuse_nothing_made
from flowtracer.folders import lock

if TYPE_CHECKING:
    from flowtracer.checks.masking import MaskingCheck, MaskingFolder, MaskingSummary, Outcome
    from flowtracer.trace import Rollout, Skipped


def mask(
    rollouts: Annotated[Path, typer.Argument(help="JSONL or Parquet file of prompts and responses.")],
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')],
    out: Annotated[Path, typer.Option(help="Folder for outcomes.jsonl and summary.json.")],
    by: Annotated[str, typer.Option(help="Strategies that score tokens: flow,flow:capacity=alti,entropy ...")] = "flow",
    shares: Annotated[str, typer.Option(help="Shares of the reasoning's tokens.")] = "0.05,0.1,0.2,0.4",
    way: Annotated[str, typer.Option(help="hide, replace or delete.")] = "hide",
    cue: Annotated[
        str | None, typer.Option(help=r"What asks for the answer, \n a line break; as the response.")
    ] = None,
    answer_pattern: Annotated[str | None, typer.Option(help=ANSWER_PATTERN)] = None,
    curves: Annotated[bool, typer.Option(help="Also keep the chosen tokens alone.")] = True,
    draws: Annotated[int, typer.Option(min=1, help="Random draws at each share.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the random draws.")] = 0,
    longest: Annotated[int, typer.Option(min=1, help="Tokens; longer rollouts are skipped.")] = 32_768,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many rollouts.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a credit causally: hide its top tokens, its bottom ones and random ones, and answer again.

    Says how many answers change and turn from right to wrong or back, with paired bootstrap intervals. Of these very
    rollouts, those that OUT already holds are not checked again.
    """
    from flowtracer.checks.masking import MaskingCheck, MaskingFolder
    from flowtracer.credit import make_credit
    from flowtracer.credit.naming import named_options, split_names
    from flowtracer.model.load import load_model, model_digest

    first, records = read_ahead(rollouts, limit, answer_pattern)
    hidden = parse_shares(shares)
    options = {"by": by, "shares": shares, "way": way, "cue": cue, "curves": curves, "draws": draws, "seed": seed}
    options |= {"answer_pattern": answer_pattern} if answer_pattern else {}
    with lock(out):
        with console.status(f"loading {model}"):
            loaded, tokenizer = load_model(model, device=device, dtype=dtype)
            check = MaskingCheck(
                loaded,
                tokenizer,
                by={name: make_credit(*named_options(name)) for name in split_names(by)},
                shares=hidden,
                way=way,
                cue=None if cue is None else cue.replace(r"\n", "\n"),
                curves=curves,
                draws=draws,
                seed=seed,
                longest=longest,
                answer_pattern=answer_pattern,
            )
        claimed = {"rollouts": str(rollouts), "model": model, "dtype": dtype, **options}
        folder = MaskingFolder(out, claimed, model=model_digest(model, loaded))
        total = len(first) if len(first) < READ_AHEAD else None
        _report(folder.summarise(_outcomes(folder, check, records, total)), as_json=as_json)
        say_written(out)


def _outcomes(
    folder: MaskingFolder, check: MaskingCheck, records: Iterable[Rollout | Skipped], total: int | None
) -> list[Outcome]:
    """What could be checked; what could not is named."""
    from flowtracer.trace.trace import Skipped

    outcomes: list[Outcome] = []
    skipped: Counter[str] = Counter()
    with progress("checking", total) as bar:
        for outcome in folder.check(check, records):
            bar.advance(bar.task_ids[0])
            if isinstance(outcome, Skipped):
                skipped[outcome.reason] += 1
                warn(f"skipped {outcome.id}: {outcome.reason}: {outcome.message}", bar.console)
            else:
                outcomes.append(outcome)
    refuse_nothing_made("checked", len(outcomes), skipped)
    return outcomes


def _report(summary: MaskingSummary, *, as_json: bool) -> None:
    from flowtracer.report.terminal.masking import masking_tables

    if as_json:
        print_json(asdict(summary))
        return
    for table in masking_tables(summary):
        console.print(table)
