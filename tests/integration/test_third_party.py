"""Distributions of strangers, built and installed: found, chosen, used; survived when broken."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.commands import Home, stub_config
from support.distributions import unpack

import gglib
import gglib.blocking
import gglib.errors
import gglib.ports
import gglib.testing

THIRD_PARTY = Path(__file__).resolve().parents[1] / "third_party"
NICE = THIRD_PARTY / "gglib-nice-runner"
ZOO = THIRD_PARTY / "gglib-zoo"

#: Beside ``__all__`` of the modules above; see docs/reference/ports.md.
PUBLIC_PARTS = {"gglib_adapters.free_port.choose_port", "gglib_adapters.probing.HttpProbe"}
PUBLIC = (gglib, gglib.blocking, gglib.errors, gglib.ports, gglib.testing)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install all three, as an installer does."""
    site = tmp_path_factory.mktemp("site")
    for name in ("gglib-nice-runner", "gglib-zoo", "gglib-broken"):
        unpack(THIRD_PARTY / name, site)
    return site


@pytest.fixture
def home(tmp_path: Path, site: Path) -> Home:
    """Give a data directory, and commands that find the strangers' distributions."""
    return Home.make(tmp_path, PYTHONPATH=str(site))


def run(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own: this one has not installed anything."""
    return home.run_apart(*arguments)


@pytest.mark.parametrize(
    "file", [*NICE.rglob("*.py"), *ZOO.rglob("*.py")], ids=lambda file: file.name
)
def test_stranger_imports_public_names_only(file: Path) -> None:
    """What is not listed may change."""
    public = {f"{module.__name__}.{name}" for module in PUBLIC for name in module.__all__}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gglib"):
            if node.module in ("gglib_nice_runner", "gglib_zoo"):
                continue
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            assert names <= public | PUBLIC_PARTS, names
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("gglib") for alias in node.names)


def test_working_runner_takes_at_most_120_lines() -> None:
    """Everything but its tests and its metadata."""
    (module,) = NICE.glob("*.py")
    assert len(module.read_text().splitlines()) <= 120


def test_strangers_runner_serves_where_it_is_configured(home: Home) -> None:
    """Chosen for every model, by its section alone; stopped by whoever comes next."""
    home.configure(
        stub_config("a", extra='[serving]\nrunner = "gentle"\n')
        + '[runners.gentle]\nkind = "nice"\nniceness = 7\n',
        "a",
    )
    started = run(home, "start", "a", "--json")
    assert started.returncode == 0, started.stderr
    server = json.loads(started.stdout)
    assert psutil.Process(server["pid"]).nice() == 7
    (row,) = json.loads(run(home, "ps", "--json").stdout)
    assert (row["model"], row["state"]) == ("a", "ready")
    stopped = run(home, "stop", "a")
    assert stopped.returncode == 0, stopped.stderr
    assert not psutil.pid_exists(server["pid"])


def test_wrong_setting_of_a_stranger_says_whose_it_is(home: Home) -> None:
    """The runner's own code refuses it; gglib names the package."""
    home.configure(
        stub_config("a") + 'runner = "nice"\n[runners.nice]\nfriendliness = 7\n',
        "a",
    )
    failed = run(home, "start", "a")
    assert failed.returncode == 1
    for part in ("nice", "friendliness", "gglib-nice-runner 1.0"):
        assert part in failed.stderr
    assert "Traceback" not in failed.stderr


def test_strangers_source_and_engine_serve_an_animal(home: Home, tmp_path: Path) -> None:
    """``zoo:parrot`` is found by its source, and talks through its engine, over the gateway."""
    (tmp_path / "cages").mkdir()
    (tmp_path / "cages" / "parrot.animal").write_text("Polly wants a token.\n")
    home.configure(
        f'[sources.zoo]\nfolder = "{tmp_path / "cages"}"\n[serving]\nengine = "animal"\n'
    )
    added = run(home, "model", "add", "zoo:parrot")
    assert added.returncode == 0, added.stderr
    missing = run(home, "model", "add", "zoo:dodo")
    assert missing.returncode == 3, missing.stderr
    assert "dodo.animal" in missing.stderr
    with home.serve() as served:
        answer = served.chat("parrot").json()
    assert answer["choices"][0]["message"]["content"] == "Polly wants a token."


def test_strangers_source_and_engine_pass_their_contracts(site: Path, tmp_path: Path) -> None:
    """Their own tests, run where they are installed."""
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(ZOO / "tests")],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_broken_distribution_is_named_and_hurts_nobody(home: Home) -> None:
    """Every kind of broken; the doctor tells each, and a model is served all the same."""
    home.configure(stub_config("a"), "a")
    examined = run(home, "doctor", "--json")
    findings = json.loads(examined.stdout)
    broken = {
        finding["detail"].split()[0]: finding
        for finding in findings
        if finding["subject"] == "plug-in" and finding["state"] == "broken"
    }
    assert set(broken) == {"unimportable", "quitting", "unfinished", "nameless"}
    for finding in broken.values():
        assert "gglib-broken 0.3" in finding["detail"]
        assert "pip uninstall gglib-broken" in finding["fix"]
    assert examined.returncode == 1
    with home.serve() as served:
        assert served.chat("a").status_code == 200


def test_broken_engine_is_named_when_a_model_needs_it(home: Home) -> None:
    """One line, with the package and the reason."""
    home.configure(stub_config("a") + '[models.b]\npath = "a.gguf"\nengine = "quitting"\n', "a")
    failed = run(home, "start", "b")
    assert failed.returncode == 1
    for part in ("quitting", "gglib-broken 0.3", "I cannot work like this"):
        assert part in failed.stderr
    assert len(failed.stderr.strip().splitlines()) <= 3
    assert run(home, "start", "a").returncode == 0
    assert run(home, "stop", "a").returncode == 0
