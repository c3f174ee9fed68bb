"""Pages: one self-contained file that opens offline by a double click.

A page is a shell (jinja2, everything escaped), one script (the committed bundle of `web/`) and packed data
(`report/payload.py`). Its content security policy allows that script by its digest and nothing else: no other script,
no network, no frame; pictures of a trace's images come out of the packed data, and from nowhere else. Token text is
hostile; it travels inside the packed data and becomes text by the script alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from flowtracer import __version__
from flowtracer.errors import InputError
from flowtracer.folders import write_atomically
from flowtracer.report.page.payload import describe, pack_trace
from flowtracer.text.printable import one_line
from flowtracer.trace.measures import made_by, reward, verdict
from flowtracer.trace.trace import Trace

ASSETS = Path(__file__).parent / "assets"
_FRAME_HEIGHT = 760


def trace_page(trace: Trace) -> str:
    """The page of one trace, as HTML."""
    gold = trace.metadata.get("gold")
    header = describe(trace)
    return render(
        "trace",
        title=page_title(trace),
        summary=one_line(header["summary"]),
        answer=one_line(trace.answer_text),
        verdict=verdict(trace),
        gold=one_line(str(gold)) if gold is not None and verdict(trace) == "wrong" else "",
        facts=_facts(trace, header["share_kept"]),
        data=pack_trace(trace, header=header),
        extra_policy="; img-src data:" if trace.images else "",
    )


def render(page: str, *, title: str, extra_policy: str = "", **content: Any) -> str:
    """A page of `assets/<page>.html.j2` around the bundled script."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(f"{page}.html.j2").render(
        page=page,
        title=title,
        version=__version__,
        script=Markup(bundle()),  # noqa: S704 - the package's own file, checked to hold no end tag
        script_hash=_digest(bundle()),
        extra_policy=extra_policy,
        **content,
    )


@lru_cache(maxsize=1)
def bundle() -> str:
    """The script of every page.

    Raises:
        InputError: The installation lacks it, or holds one that would break out of its element.
    """
    file = ASSETS / "page.js"
    if not file.is_file():
        raise InputError(f"expected the page's script at {str(file)!r}, got none; reinstall flowtracer")
    script = file.read_text(encoding="utf-8")
    if re.search(r"</script|<!--", script, re.IGNORECASE):
        raise InputError(f"expected a script without end tags at {str(file)!r}, got one; reinstall flowtracer")
    return script


def write_page(path: str | Path, content: str) -> Path:
    """Write a page, whole or not at all; the folder must exist."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"expected an existing folder, got {str(path.parent)!r}; create it first")
    return write_atomically(path, content)


def framed(content: str, height: int = _FRAME_HEIGHT) -> str:
    """A whole page inside another, as notebooks show it: its styles and names touch nothing around it."""
    return (
        f'<iframe srcdoc="{escape(content)}" width="100%" height="{height}" style="border:0" loading="lazy" '
        'sandbox="allow-scripts allow-downloads"></iframe>'
    )


def show(trace: Trace) -> None:
    """Show a trace: in the notebook where there is one, else in the browser."""
    if _in_notebook():
        from IPython.display import HTML, display

        display(HTML(framed(trace_page(trace))))
        return
    import tempfile
    import webbrowser

    # The browser reads the file after this process may have ended, so it is not deleted here.
    with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="flowtracer-", delete=False, encoding="utf-8") as file:
        file.write(trace_page(trace))
    webbrowser.open(Path(file.name).as_uri())


def page_title(trace: Trace) -> str:
    """What a browser's tab says."""
    name = trace.metadata.get("id")
    answer = one_line(trace.answer_text)
    return f"{one_line(str(name))}: {answer}" if name else f"The flow to {answer}"


def _facts(trace: Trace, kept: float) -> list[str]:
    edges = f"{len(trace.edges):,} edges"
    if trace.edges.complete:
        flow = f"all of the flow kept, {edges}"
    else:
        flow = f"{kept:.0%} of the flow kept on the {len(trace.edges):,} largest edges"
    layers = f"layers {trace.layers[0]}-{trace.layers[-1]}" if trace.layers else ""
    name, rewarded = trace.metadata.get("id"), reward(trace.metadata)
    given = [
        f"{len(trace):,} tokens",
        f"{max(len(trace.step_spans) - 1, 0):,} sentences",
        flow,
        one_line(trace.model.rstrip("/").rsplit("/", 1)[-1]),
        layers,
        one_line(made_by(trace)),
        "" if rewarded is None else f"reward {rewarded:.3g}",
        one_line(str(name)) if name else "",
    ]
    return [fact for fact in given if fact]


def _in_notebook() -> bool:
    import sys

    # A notebook has loaded IPython before; a plain interpreter must not load it to find out.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
