"""The how-tos, followed to the letter: every file saved, every command typed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.distributions import unpack
from support.extras import require_embedded_engine
from support.pages import FOLLOWED, ROOT, Block, blocks_of

THIRD_PARTY = ROOT / "tests" / "third_party"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: str(page.stem))
def test_how_to_works_as_it_is_written(page: Path, tmp_path: Path) -> None:
    """In an empty folder, with a data directory of its own."""
    if "lib.serve" in page.read_text() and "gglib_lib" not in page.read_text():
        require_embedded_engine()
    reader = Reader(tmp_path)
    for block in blocks_of(page):
        reader.read(block)
    assert reader.typed, "a how-to has commands to type"


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "gglib_nice_runner.py", "tests/test_contract.py"]
)
def test_runner_of_the_how_to_is_the_one_that_is_tested(name: str) -> None:
    """The page and tests/third_party show the same."""
    page = ROOT / "docs" / "how-to" / "write-a-runner.md"
    shown = {block.file: block.code for block in blocks_of(page) if block.file}
    assert (
        shown[f"gglib-nice-runner/{name}"] == (THIRD_PARTY / "gglib-nice-runner" / name).read_text()
    )


class Reader:
    """Somebody at a shell, who does what the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.site.mkdir()
        self.here = folder / "work"
        self.here.mkdir()
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.typed: list[str] = []

    def read(self, block: Block) -> None:
        """Save the block, or type what it shows."""
        if block.file:
            path = self.folder / "work" / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
        elif block.language == "toml":
            (self.home / "gglib.toml").write_text(block.code)
        elif block.language == "console":
            for line in block.code.splitlines():
                if line.startswith("$ "):
                    self.type(line.removeprefix("$ "))

    def type(self, command: str) -> None:
        """Do what the command does; installing is done without the network."""
        self.typed.append(command)
        words = shlex.split(command)
        if words[0] == "cd":
            self.here /= words[1]
        elif words[:2] == ["pip", "install"]:
            self.install(words[2:])
        else:
            self.run(words)

    def install(self, words: list[str]) -> None:
        """Build and unpack what is here; what comes from elsewhere is there already."""
        if words[-1] == ".":
            unpack(self.here, self.site)
            return
        for word in words:
            assert find_spec(word) is not None, f"{word} is not installed"

    def run(self, words: list[str]) -> None:
        """Run a command, which has to end well."""
        scripts = str(Path(sys.executable).parent)
        environment = {
            "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
            "HOME": str(self.folder),
            "GGLIB_HOME": str(self.home),
            "PYTHONPATH": str(self.site),
        }
        done = subprocess.run(
            words,
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"$ {' '.join(words)}\n{done.stdout}\n{done.stderr}"
