"""The embedded engine, installed beside gglib: its package comes from a folder of wheels."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import pytest
from support.commands import Home

from gglib.domain.config import ServerConfig
from gglib.ports.engine import EngineProbe
from gglib.testing.contexts import make_context
from gglib_adapters.engines.embedded import open_embedded_engine
from gglib_adapters.engines.embedded_server import main
from gglib_adapters.engines.embedded_site import SITE_VARIABLE

CONFIG = ServerConfig(model_id=1, model_name="m", model_path=Path("/m.gguf"))


def write_wheel(folder: Path, version: str, code: str) -> None:
    """Write a wheel that is called as the real one is."""
    folder.mkdir(exist_ok=True)
    info = f"xllamacpp-{version}.dist-info"
    files = {
        "xllamacpp/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"xllamacpp-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return a data directory whose pip knows a folder of wheels, and no network."""
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "1.2.3", "raise_ = None\n")
    write_wheel(wheels, "1.2.4", "raise ImportError('built for another machine')\n")
    return Home.make(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels), PIP_CONFIG_FILE="")


def test_installed_package_is_found_when_gglib_has_none(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment of its own; the child process is told where. Failures change nothing."""
    done = home.run("engine", "install", "embedded", "--version", "1.2.3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("installed embedded 1.2.3 (")
    broken = home.run("engine", "install", "embedded", "--version", "1.2.4")
    assert broken.returncode == 1
    assert "ImportError: built for another machine" in broken.stderr
    missing = home.run("engine", "install", "embedded", "--version", "9.9")
    assert missing.returncode == 1
    assert "No matching distribution found for xllamacpp==9.9" in missing.stderr
    assert "put llama-server on PATH" in missing.stderr
    (kept,) = home.json("engine", "list")["installed"]
    assert (kept["version"], kept["current"]) == ("1.2.3", True)

    # In sys.modules, None says that there is no such module, wherever it may be.
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    probe, site = anyio.run(found_in, home.path)
    assert (probe.version, probe.source) == ("1.2.3", "installed")
    assert str(probe.path).startswith(site)
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "gglib_adapters.engines.embedded_server"],
        stdin=subprocess.PIPE,
        env={SITE_VARIABLE: site},
    ) as server:
        refused = home.run("engine", "remove", "1.2.3")
        server.communicate(b"\n")
    assert refused.returncode == 4
    assert f"in use by pid {server.pid}" in refused.stderr
    assert home.run("engine", "remove", "1.2.3").returncode == 0


async def found_in(data_dir: Path) -> tuple[EngineProbe, str]:
    """Return what the engine finds, and where its servers are told to look."""
    async with open_embedded_engine(make_context(data_dir, name="embedded")) as engine:
        return await engine.probe(), engine.environment(CONFIG)[SITE_VARIABLE]


def test_child_process_takes_the_package_from_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After all other places: what gglib's own environment has comes first."""
    package = tmp_path / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('the one of the site')")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    monkeypatch.setenv(SITE_VARIABLE, str(tmp_path))
    assert main(["--model", "m.gguf"]) == 1
    assert "the one of the site" in capsys.readouterr().err
    assert sys.path[-1] == str(tmp_path)
