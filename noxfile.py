"""Everything that is done to the project. ``nox -l`` lists it; ``nox`` alone runs the checks."""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "imports", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
CORE = "gglib/errors.py,gglib/domain/*,gglib/ports/*,gglib/services/*"


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def demo(session: nox.Session) -> None:
    """A real engine, a real answer."""
    session.install("-e", ".[llama]")
    session.run("gglib", "demo")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, with the coverage of what runs in their processes; arguments go to pytest."""
    session.install("-e", ".[llama]", *group("test"))
    session.run("coverage", "erase")
    pytest = str(Path(session.bin, "pytest"))
    # Most tests wait for a process or a clock: three at a time keep two cores busy.
    session.run("coverage", "run", pytest, *(session.posargs or ("-n", "3", "--dist", "loadfile")))
    if session.posargs:
        return
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report", "-m", f"--include={CORE}", "--fail-under=95")
    session.run("coverage", "report", "-m", "--fail-under=90")


@nox.session
def soak(session: nox.Session) -> None:
    """Long counts: thousands of mutants, hundreds of starts."""
    session.install("-e", ".[llama]", *group("test"))
    session.run("pytest", "-m", "soak", "--timeout=3600", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly; and what they promise to users, by files that are never run."""
    session.install("-e", ".[llama,otel]", *group("check"))
    session.run("mypy", *session.posargs)
    if not session.posargs:
        session.run("mypy", *sorted(str(path) for path in Path("tests/typing").glob("*.py")))


@nox.session
def imports(session: nox.Session) -> None:
    """The arrows between the layers."""
    session.install("-e", ".", *group("check"))
    session.run("lint-imports", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Form and habits."""
    session.install(*[need for need in group("check") if need.startswith("ruff")])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation's examples, executed."""
    session.install("-e", ".[llama]", *group("test"))
    session.run("pytest", "docs", "tests/docs", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What things cost; needs nginx, wrk and an OpenSSH server on this machine."""
    session.install("-e", ".[llama]", *group("test"))
    session.run("python", "tests/bench/commands.py", env={"PYTHONPATH": "tests"})
    session.run("python", "tests/bench/gguf_header.py")
    session.run("python", "tests/bench/catalog.py")
    session.run("python", "tests/bench/scheduler.py")
    session.run("python", "tests/bench/readiness.py", env={"PYTHONPATH": "tests"})
    session.run("python", "tests/bench/far.py", env={"PYTHONPATH": "tests"})
    session.run("python", "tests/bench/request.py")
    session.run(
        "python",
        "tests/bench/relay.py",
        "--json=bench-results/relay.json",
        *session.posargs,
        env={"PYTHONPATH": "tests"},
    )
