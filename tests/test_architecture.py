"""The walls of docs/architecture.md, held by the import graph."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flowtracer

PACKAGE = Path(flowtracer.__file__).parent

# A room may import the rooms of the levels before its own.
LEVELS = [
    {"errors", "shapes"},
    {"options"},
    {"intervals", "folders", "hub", "text", "attention", "credit"},
    {"trace", "model"},
    {"flow", "tasks"},
    {"tracing", "signals", "evaluation"},
    {"rl", "checks"},
    {"report"},
    {"study", "demo", "doctor"},
    {"cli"},
]
RUNS_BACK = {("trace", "report")}  # a trace shows itself, inside one method
NEVER = {
    ("flow", "attention"),
    ("flow", "model"),
    ("flow", "transformers"),
    ("credit", "transformers"),
    ("signals", "transformers"),
    *(("trace", heavy) for heavy in ("torch", "transformers", "pandas", "matplotlib", "datasets")),
}
OF_VERL = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("rl/verl/*.py")}
ONLY_AT = {
    "trl": {"rl/trl_trainer.py"},
    **dict.fromkeys(("verl", "transfer_queue", "tensordict", "omegaconf"), OF_VERL),
    "typer": {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("cli/*.py")},
    "ray": OF_VERL | {"tracing/ray_engine.py"},
    "reasoning_gym": {"tasks/base.py"},
    "math_verify": {"evaluation/equality.py", "evaluation/worker.py"},
    "triton": {"attention/kernels/launch.py", "attention/kernels/rows.py"},
}


def imports():
    """Every import of the package as (file, room, imported top-level name or room)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        relative = file.relative_to(PACKAGE)
        room = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative}: expected absolute imports"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                yield relative.as_posix(), room, parts[1] if parts[0] == "flowtracer" else parts[0]


def level_of(room):
    return next((index for index, level in enumerate(LEVELS) if room in level), None)


def test_every_room_has_its_level():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules | {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set.union(*LEVELS)


def test_arrows_run_one_way():
    wrong = []
    for file, room, imported in imports():
        mine, theirs = level_of(room), level_of(imported)
        if room == imported or room == "__init__" or theirs is None or (room, imported) in RUNS_BACK:
            continue
        if theirs >= mine:
            wrong.append(f"{file} imports {imported}")
    assert not wrong


def test_forbidden_imports():
    wrong = [f"{file} imports {imported}" for file, room, imported in imports() if (room, imported) in NEVER]
    wrong += [
        f"{file} imports {imported}"
        for file, _, imported in imports()
        if imported in ONLY_AT and file not in ONLY_AT[imported]
    ]
    assert not wrong


def test_a_public_class_has_a_name_of_its_own():
    homes: dict[str, list[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(file.relative_to(PACKAGE).as_posix())
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flowtracer", ["torch", "transformers", "numpy"]),
        ("import flowtracer; flowtracer.load_trace", ["torch", "transformers", "rich"]),
        ("import flowtracer.cli", ["torch", "transformers", "numpy"]),
        ("import flowtracer; flowtracer.compare", ["torch", "transformers", "rich"]),
        ("import flowtracer; flowtracer.compute_flow", ["transformers", "trl"]),
        ("import flowtracer; flowtracer.Tracer", ["trl", "reasoning_gym"]),
        ("import flowtracer; flowtracer.TASKS", ["torch", "reasoning_gym"]),
        ("import flowtracer.evaluation.worker", ["torch", "transformers", "datasets", "typer", "rich"]),
    ],
)
def test_import_weight(statement, absent):
    code = f"import sys\n{statement}\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_resolve():
    for name in flowtracer.__all__:
        assert getattr(flowtracer, name) is not None
    with pytest.raises(AttributeError, match="compute_flow"):
        flowtracer.compute_flaw  # noqa: B018
