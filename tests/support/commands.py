"""The ``gglib`` command, as its users run it: another process, its own data directory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gglib.cli.main import run
from gglib.testing import stub_engine

__all__ = ["Home", "Served", "gglib", "stub_config", "stub_section"]

STUB = Path(stub_engine.__file__).with_name("stub_server.py")


def stub_config(*models: str, load_s: float = 0.0, extra: str = "", **options: Any) -> str:
    """Return a configuration whose models are served by the stub."""
    return "\n".join([extra, stub_section("stub", *models, load_s=load_s, **options)])


def stub_section(engine: str, *models: str, **options: Any) -> str:
    """Return an engine that is the stub with these options, and models that it serves."""
    inner = json.dumps({"model_name": "{model_name}", **options})[1:-1]
    argument = '{{"port": {port}, ' + inner + "}}"
    # -I -S: a third of the interpreter's start.
    command = json.dumps([sys.executable, "-I", "-S", str(STUB), argument])
    lines = [f"[engines.{engine}]\ncommand = {command}\n"]
    lines += [f'[models.{name}]\npath = "{name}.gguf"\nengine = "{engine}"\n' for name in models]
    return "\n".join(lines)


@dataclass
class Served:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    address: str

    def client(self) -> httpx.Client:
        """Return a client of the gateway."""
        return httpx.Client(base_url=self.address, timeout=30, trust_env=False)

    def chat(self, model: str, **more: Any) -> httpx.Response:
        """Ask for one chat completion."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)


@dataclass
class Home:
    """One data directory, and the command that works on it."""

    path: Path
    environment: Mapping[str, str]

    @classmethod
    def make(cls, folder: Path, **environment: str) -> Home:
        """Make one below ``folder``."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            # A user's commands find their bytecode; a second of compiling is not under test.
            if not name.startswith("GGLIB_") and name != "PYTHONDONTWRITEBYTECODE"
        }
        path = folder / "home"
        return cls(path, {**inherited, "GGLIB_HOME": str(path), **environment})

    def configure(self, text: str, *model_files: str) -> None:
        """Write ``gglib.toml``, and files for the models it names."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        (self.path / "gglib.toml").write_text(text)
        for name in model_files:
            (self.path / f"{name}.gguf").write_bytes(b"the stub reads no model")

    def run(self, *arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: in this process, where nothing of it stays behind.

        A start of the interpreter takes longer than most commands, and there are hundreds.
        """
        if arguments[0] in {"serve", "start", "demo"}:
            return self.run_apart(*arguments, timeout=timeout)
        out, errors = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            for name in [name for name in os.environ if name.startswith("GGLIB_")]:
                patch.delenv(name)
            for name, value in self.environment.items():
                if os.environ.get(name) != value:
                    patch.setenv(name, value)
            status = run(arguments)
        return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())

    def run_apart(self, *arguments: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in a process of its own."""
        return subprocess.run(
            [gglib(), *arguments],
            capture_output=True,
            text=True,
            env=dict(self.environment),
            timeout=timeout,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed, and return what it prints as JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def serve(self, *arguments: str) -> Iterator[Served]:
        """Run ``gglib serve`` on a free port for the block."""
        log = self.path.parent / "serve.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                [gglib(), "serve", "--port", "0", "--json", *arguments],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=dict(self.environment),
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Served(process, json.loads(line)["address"])
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
            process.stdout.close()


def gglib() -> str:
    """Return the installed command."""
    found = shutil.which("gglib", path=str(Path(sys.executable).parent))
    assert found, "gglib is not installed beside this interpreter"
    return found
