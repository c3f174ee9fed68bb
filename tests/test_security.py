"""What the source never does: run data as code, load pickles, trust code out of a hub, hand a string to a shell."""

import ast
from pathlib import Path

import pytest

import flowtracer

SOURCE = Path(flowtracer.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
FORBIDDEN_MODULES |= {"pty", "commands", "ctypes", "code", "codeop", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_METHODS = {"os.system", "os.popen", "torch.load", "np.load", "numpy.load", "torch.hub.load", "pd.read_pickle"}
STARTS_PROCESSES = {"evaluation/pool.py", "study/runner.py"}
"""The only files that do: this interpreter, on modules of this package."""


def dotted(node):
    """`os.path.join` of an attribute, as text."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def faults(tree):
    """What a tree does that it must not, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] in FORBIDDEN_MODULES:
                    yield f"line {node.lineno} imports {name}"
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FORBIDDEN_CALLS | FORBIDDEN_METHODS:
                yield f"line {node.lineno} calls {name}"
            for keyword in node.keywords:
                given = keyword.value.value if isinstance(keyword.value, ast.Constant) else "what it is told"
                if keyword.arg in ("shell", "trust_remote_code", "allow_pickle") and given is not False:
                    yield f"line {node.lineno} passes {keyword.arg}={given}"
                if keyword.arg == "weights_only" and given is not True:
                    yield f"line {node.lineno} passes weights_only={given}"


@pytest.mark.parametrize("file", TREES)
def test_nothing_that_is_read_is_run(file):
    assert list(faults(TREES[file])) == []


@pytest.mark.parametrize(
    "line",
    [
        *("import pickle", "from yaml import load", "eval(x)", "exec(x)", "os.system(x)", "torch.load(x)"),
        *("run(x, shell=True)", "run(x, shell=y)", "load(x, trust_remote_code=True)", "np.load(x, allow_pickle=True)"),
        *("f(weights_only=False)", "__import__(x)", "compile(x, '', 'exec')"),
    ],
)
def test_each_of_these_would_be_seen(line):
    assert list(faults(ast.parse(line)))


def test_processes_are_started_in_few_places_and_by_lists():
    importing = {
        file
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and "subprocess" in {getattr(node, "module", ""), *(alias.name for alias in node.names)}
    }
    assert importing == STARTS_PROCESSES
    for file in importing:
        started = [
            node
            for node in ast.walk(TREES[file])
            if isinstance(node, ast.Call) and dotted(node.func) in ("subprocess.run", "subprocess.Popen")
        ]
        assert started
        assert all(isinstance(node.args[0], ast.List) for node in started), "a command is a list, which no shell reads"
