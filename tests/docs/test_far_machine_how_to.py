"""The how-to for another machine, followed with one behind an OpenSSH server of our own."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Home
from support.extras import require_embedded_engine
from support.far_machine import far_machine
from support.pages import ROOT, blocks_of

from gglib.services.demo.tiny_gguf import tiny_gguf

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

PAGE = ROOT / "docs" / "how-to" / "serve-from-another-machine.md"
FAR_FOLDER = "/srv/models"


def script(path: Path, line: str) -> None:
    """Write a program of one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
    path.chmod(0o755)


def test_how_to_works_as_it_is_written(tmp_path: Path) -> None:
    """Every setting and every line that is typed, with an ssh that knows ``box``."""
    require_embedded_engine()
    for name in ("box", "attic"):
        (tmp_path / name).mkdir()
    with (
        far_machine(tmp_path / "box") as machine,
        far_machine(tmp_path / "attic", host="attic") as attic,
    ):
        # What a reader has before: machines that ssh knows, with an engine and a model.
        ssh = shutil.which("ssh")
        known = tmp_path / "ssh_config"
        known.write_text(machine.config.read_text() + attic.config.read_text())
        script(tmp_path / "bin" / "ssh", f"{ssh} -F {known}")
        engine = f"{sys.executable} -P -m gglib_adapters.engines.embedded_server"
        for each in (machine, attic):
            script(each.folder / "home" / "llama.cpp" / "llama-server", engine)
        # The same path leads to it on both: they are one.
        models = tmp_path / "models"
        models.mkdir()
        for name in ("qwen", "small"):
            (models / f"{name}.gguf").write_bytes(tiny_gguf())

        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        home = Home.make(tmp_path, PATH=path)
        said: dict[str, str] = {}
        tables: dict[str, str] = {}
        for block in blocks_of(PAGE):
            if block.language == "toml":
                # What is said of a model later takes the place of what was said of it before.
                tables |= {
                    each.partition("]")[0]: each for each in re.split(r"(?m)^(?=\[)", block.code)
                }
                home.configure("\n".join(tables.values()).replace(FAR_FOLDER, str(models)))
            for line in block.code.splitlines():
                if block.language == "console" and line.startswith("$ "):
                    done = subprocess.run(
                        shlex.split(line.removeprefix("$ ").replace(FAR_FOLDER, str(models))),
                        env=dict(home.environment),
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                    )
                    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
                    said[line.removeprefix("$ ")] = done.stdout

        (shown,) = (b.code for b in blocks_of(PAGE) if "$ gglib doctor" in b.code)
        steps = [line.split("  ")[1].strip() for line in shown.splitlines()[1:]]
        found = said["gglib doctor --runner box"].splitlines()
        assert [line.split("  ")[1].strip() for line in found] == steps
        scanned = said[f"gglib model scan --runner box {FAR_FOLDER}"].splitlines()
        assert scanned == [f"added small ({models}/small.gguf)", "1 added, 1 unchanged"]
        on_each = said["gglib model fit qwen"].splitlines()
        assert [line.rpartition(", on ")[2] for line in on_each] == ["box", "attic"]
        assert said["gglib model fit small"].endswith("/3 layers, ctx 2048, on box\n")
        verified = said["gglib model verify small"]
        assert verified.startswith(f"small: {models}/small.gguf recorded now (sha256 ")
        assert "qwen" in said["gglib ps"]
        assert "model loaded" in said["gglib logs qwen"]
        kept = machine.folder / "home" / ".local" / "share" / "gglib" / "servers"
        assert list(kept.glob("*/*/log"))
