"""What users rely on, as one tree: public names, commands and their flags, run files, traces, records, strategies.

    python tests/public.py          write tests/public.json anew

The test holds the code to that file, so that a change of it is seen, and meant.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")


def public() -> dict[str, Any]:
    """The tree, as JSON holds it."""
    from flowtracer.attention.capacity import CAPACITIES, GRAPHS
    from flowtracer.credit import CREDITS
    from flowtracer.evaluation.registry import BENCHMARKS
    from flowtracer.report.figures.plots import FIGURES
    from flowtracer.rl.run import FREE, RunFile
    from flowtracer.study.matrix import StudyFile
    from flowtracer.tasks import TASKS

    names = {"credits": CREDITS, "tasks": TASKS, "benchmarks": BENCHMARKS, "figures": FIGURES}
    return {
        "names": _names(),
        "commands": _commands(),
        "run file": _section(RunFile),
        "run file, may change before a run goes on": sorted(FREE),
        "study file": _section(StudyFile),
        "trace": _trace(),
        "records": _records(),
        **{name: sorted(found) for name, found in names.items()},
        "capacities": sorted(CAPACITIES),
        "graphs": sorted(GRAPHS),
    }


def _names() -> dict[str, Any]:
    import flowtracer as ft

    found: dict[str, Any] = {}
    for name in ft.__all__:
        public = getattr(ft, name)
        if isinstance(public, Mapping):
            found[name] = "a mapping by name"
        elif not inspect.isclass(public):
            found[name] = _parameters(public)
        else:
            members = {key: value for key, value in vars(public).items() if not key.startswith("_")}
            found[name] = {
                "fields": [field.name for field in dataclasses.fields(public)]
                if dataclasses.is_dataclass(public)
                else _parameters(public),
                "properties": sorted(key for key, value in members.items() if isinstance(value, property)),
                "methods": {
                    key: _parameters(getattr(public, key))
                    for key, value in sorted(members.items())
                    if inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)
                },
            }
    return found


def _parameters(function: Any) -> list[str]:
    """`name`, `name=default`, `*name` where it is passed by name alone."""
    said = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        star = {parameter.KEYWORD_ONLY: "*", parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "..."}
        given = parameter.default
        default = "" if given is parameter.empty else f"={getattr(given, '__name__', repr(given))}"
        said.append(f"{star.get(parameter.kind, '')}{parameter.name}{default}")
    return said


def _commands() -> dict[str, list[str]]:
    from typer.main import get_command

    from flowtracer.cli import app

    return {
        name: sorted(" ".join(sorted(parameter.opts)) for parameter in command.params)
        for name, command in sorted(get_command(app).commands.items())  # type: ignore[attr-defined]
    }


def _section(kind: Any) -> dict[str, Any]:
    """Fields of a table of a file, with the defaults that JSON can say."""
    from flowtracer.rl.run import Section

    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Section):
            found[name] = _section(field.annotation)
        elif field.is_required():
            found[name] = "required"
        else:
            default = field.get_default(call_default_factory=True)
            found[name] = int(default) if isinstance(default, int) and not isinstance(default, bool) else default
    return found


def _trace() -> dict[str, Any]:
    from flowtracer.trace import Trace
    from flowtracer.trace import trace as module
    from traces import make_trace

    trace = make_trace(expected_flow=make_trace().flow)
    return {
        "schema": module.SCHEMA_VERSION,
        "fields": [field.name for field in dataclasses.fields(Trace)],
        "header": sorted(module._header(trace)),
        "arrays": sorted(module._arrays(trace)),
    }


def _records() -> dict[str, str]:
    from flowtracer.trace.records import _LAYOUTS, _READERS

    return {**{name: layout.fields for name, layout in _LAYOUTS.items()}, "files": " ".join(_READERS)}


def as_text(tree: Mapping[str, Any]) -> str:
    """The file of a tree."""
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text(public()), encoding="utf-8")
    sys.stdout.write(f"wrote {FILE}; say what changed in CHANGELOG.md\n")
