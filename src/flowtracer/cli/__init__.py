"""The command line, a module a command.

Exit codes: 0 on success, 2 for a mistake that the user can mend, with a message that says how. Torch and transformers
load inside commands, so that `--help` is instant.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from flowtracer import __version__
from flowtracer.cli.compare import compare
from flowtracer.cli.console import console, speak_beside
from flowtracer.cli.demo import demo
from flowtracer.cli.doctor import doctor
from flowtracer.cli.evaluate import evaluate
from flowtracer.cli.explain import explain
from flowtracer.cli.faithfulness import faithfulness
from flowtracer.cli.mask import mask
from flowtracer.cli.meter import meter
from flowtracer.cli.page import page
from flowtracer.cli.plot import plot
from flowtracer.cli.study import study
from flowtracer.cli.trace import trace
from flowtracer.cli.train import train
from flowtracer.cli.try_out import try_out
from flowtracer.errors import FlowTracerError

app = typer.Typer(name="flowtracer", no_args_is_help=True, pretty_exceptions_enable=False)
app.command("try")(try_out)
app.command()(trace)
app.command()(page)
app.command()(explain)
app.command()(compare)
app.command()(plot)
app.command()(mask)
app.command()(faithfulness)
app.command()(meter)
app.command("eval")(evaluate)
app.command()(train)
app.command()(study)
app.command()(demo)
app.command()(doctor)


def _print_version(asked: bool) -> bool:
    if asked:
        console.print(f"flowtracer {__version__}", highlight=False)
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """See how a language model's reasoning flows from question to answer, and train on it."""
    speak_beside(False)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as its message, without a line of code."""
    return f"warning: {message}\n"


def main() -> None:
    """Entry point: a user's mistake becomes one message and exit code 2, a bug stays a traceback."""
    warnings.formatwarning = _one_line
    # What libraries will change, and a bar for each file they touch, is nothing that a user of this command can act on.
    warnings.simplefilter("ignore", FutureWarning)
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app()
    except FlowTracerError as error:
        Console(stderr=True).print(Text(f"error: {error}", style="red"), soft_wrap=True)
        sys.exit(2)
