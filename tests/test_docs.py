"""The documentation: it builds, names what exists, and its commands and snippets are such that run."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

import flowtracer
from flowtracer.cli import app
from flowtracer.text.answer import Miss
from flowtracer.tracing.attempts import WORKER_DIED
from flowtracer.tracing.memory import OUT_OF_MEMORY

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("src/flowtracer/model/*/README.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language):
    """Every block of code in that language, with its page."""
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, (found, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if found == language
    ]


def test_the_site_builds_and_every_link_resolves(tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "dummy",
        "-c",
        "docs",
        ".",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_has_a_place_in_the_reference():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    missing = [name for name in flowtracer.__all__ if not re.search(rf"\b(flowtracer|ft)\.{name}\b", page)]
    assert not missing


def reasons():
    """Every reason for which a rollout is left out, as the source says them."""
    found = {miss.value for miss in Miss} | {OUT_OF_MEMORY, WORKER_DIED}
    for file in (ROOT / "src").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            given = call.args[:1] if call.func.id in ("TraceError", "BadRecord") else []
            given += [word.value for word in call.keywords if (call.func.id, word.arg) == ("Skipped", "reason")]
            found |= {value.value for value in given if isinstance(value, ast.Constant)}
    return found


def test_every_reason_has_a_section():
    sections = set(re.findall(r"^### (\w+)$", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(sections) > 15
    assert sections - reasons() == {"no_flow"}, "sections of reasons that are no more; no_flow is a metric"
    assert reasons() - sections == set()


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands_take_the_options_that_pages_give_them(code):
    """Parsed, not run: what each does is tested beside its module."""
    commands = typer.main.get_command(app)
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "flowtracer" not in words[:1]:
            continue
        name, *arguments = words[1:]
        assert name in commands.commands, line
        if "..." not in arguments:
            commands.commands[name].make_context(name, arguments, parent=click.Context(commands))


def ours(node):
    """Whether it imports FlowTracer; what else a snippet takes need not be installed."""
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return all(name.split(".")[0] == "flowtracer" and not name.startswith("flowtracer.rl.verl") for name in names)


@pytest.mark.parametrize("code", blocks("python"))
def test_snippets_are_python_and_import_what_exists(code):
    imports = [
        node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom) and ours(node)
    ]
    exec(compile(ast.Module(body=imports, type_ignores=[]), "snippet", "exec"), {})  # noqa: S102


def test_the_tutorial_runs(capsys):
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    names = {}
    for code in (code for language, code in BLOCK.findall(page) if language == "python"):
        exec(compile(code, "docs/start.md", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out.startswith("The answer 7 draws ")
    assert callable(names["late_half"])
