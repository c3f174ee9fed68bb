"""The corners of what pyproject.toml allows, over a fast subset of the tests.

nox                       all sessions of the Pythons that are installed
nox -s oldest-3.11        one of them
"""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
SUBSET = (
    *("tests/flow/test_flow.py", "tests/text", "tests/trace/test_trace.py", "tests/test_public.py"),
    *("tests/model/test_capture.py", "tests/tracing/test_tracer.py", "tests/rl/test_trl_trainer.py"),
)


def run_subset(session: nox.Session) -> None:
    """Deprecations of libraries that came later, or earlier, only warn."""
    session.run("pip", "freeze") if session.venv_backend == "virtualenv" else session.run("uv", "pip", "freeze")
    session.run("pytest", "-W", "default", *(session.posargs or SUBSET), env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHONS, venv_backend="uv")
def oldest(session: nox.Session) -> None:
    """The oldest of each direct requirement that go together."""
    pins = session.create_tmp() + "/oldest.txt"
    session.run("uv", "pip", "compile", "--resolution", "lowest-direct", "--extra", "dev", "pyproject.toml", "-o", pins)
    session.install("-r", pins)
    session.install("--no-deps", "-e", ".")
    run_subset(session)


@nox.session(python=PYTHONS, venv_backend="uv")
def newest(session: nox.Session) -> None:
    """The newest of everything."""
    session.install("--upgrade", "-e", ".[dev]")
    run_subset(session)
