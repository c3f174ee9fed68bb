"""`flowtracer faithfulness`: strategies of credit against planted truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flowtracer.cli.console import AsJson, console, print_json, progress, say_written
from flowtracer.errors import InputError
from flowtracer.folders import refuse_unwritable, write_atomically


def faithfulness(
    model: Annotated[str, typer.Option(help='Hub id, folder, .gguf file, "nano" or "smollm2".')] = "nano",
    task: Annotated[str, typer.Option(help="planted:chains=2,length=3, countdown:brief=true ...")] = "planted",
    strategies: Annotated[str, typer.Option(help="flow,attention,entropy ...")] = "all",
    problems: Annotated[int, typer.Option(min=1, help="Held-out problems.")] = 300,
    bands: Annotated[bool, typer.Option("--bands", help="Also signals of attention by band of layers.")] = False,
    group: Annotated[int, typer.Option(help="Responses to a problem for strategies that compare them.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the responses, of sampling and of the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file of what was measured.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16; as saved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge strategies by planted truth: do they tell the steps that an answer needs from those that it does not?

    A task writes right responses whose needed steps are known; AUROC over those that the model concludes rightly, by
    step and by token, with bootstrap intervals over problems. 0.5 says nothing.
    """
    from flowtracer.checks.planted import faithfulness as judge_all
    from flowtracer.credit.naming import split_names
    from flowtracer.model.load import load_model
    from flowtracer.report.terminal.planted import faithfulness_tables
    from flowtracer.tasks import WorkedTask, parse_task

    chosen = parse_task(task)
    if not isinstance(chosen, WorkedTask):
        raise InputError(f"expected a task that writes responses, planted or countdown, got {task!r}")
    if out is not None:
        refuse_unwritable(out)
    names = None if strategies == "all" else split_names(strategies)
    asked = chosen.problems("test", problems)
    with console.status(f"loading {model}"):
        loaded = load_model(model, device=device, dtype=dtype)
    with progress("judging", len(asked)) as bar:
        result = judge_all(
            *loaded,
            chosen,
            asked,
            strategies=names,
            bands=bands,
            group=group,
            seed=seed,
            on_problems=lambda done: bar.advance(bar.task_ids[0], done),
        )
    document = {"model": model, "task": task, "group": group, "seed": seed, "dtype": dtype} | result.to_dict()
    if as_json:
        print_json(document)
    else:
        for table in faithfulness_tables(result):
            console.print(table)
    if out is not None:
        say_written(write_atomically(out, json.dumps(document, indent=1) + "\n"))
