"""`flowtracer compare`: two responses side by side, or a group of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowtracer.cli.console import AsJson, console, print_json
from flowtracer.cli.options import load_traces


def compare(
    traces: Annotated[list[Path], typer.Argument(help="Two traces of one prompt; or more, or folders of them.")],
    hubs: Annotated[int, typer.Option(min=1, help="How many hubs of each.")] = 5,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write a page as well.")] = None,
) -> None:
    """Compare two responses to one prompt: where they part, hubs kept, lost and new.

    More than two are a group: what right and wrong ones share, where they part, and what flowed differently.
    """
    from flowtracer.report.page.comparison import comparison_page, group_page
    from flowtracer.report.page.html import write_page
    from flowtracer.report.terminal.comparison import render_comparison
    from flowtracer.report.terminal.group import render_group
    from flowtracer.trace.compare import compare as compare_two
    from flowtracer.trace.group import compare_group

    loaded = [trace for _, trace in load_traces(traces)]
    if len(loaded) == 2:
        comparison = compare_two(*loaded, hubs=hubs)
        content, shown = comparison.to_dict(), render_comparison(comparison)
    else:
        group = compare_group(loaded, hubs=hubs)
        content, shown = group.to_dict(), render_group(group)
    if html is not None:
        write_page(html, comparison_page(comparison) if len(loaded) == 2 else group_page(group))
    if as_json:
        print_json(content)
    else:
        console.print(shown)
