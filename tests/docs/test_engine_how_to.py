"""docs/how-to/get-an-engine.md, typed line by line, with a release server on this machine."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

import pytest
from support.commands import Home
from support.file_server import file_server
from support.pages import ROOT, blocks_of
from support.releases import put_release, server_program, tar_gz

from gglib_adapters.engines import llama_installer, llama_releases
from gglib_adapters.engines.llama_releases import Machine

PAGE = ROOT / "docs" / "how-to" / "get-an-engine.md"


def typed() -> list[tuple[str, list[str]]]:
    """Return each command of the page, and the lines that follow it there."""
    commands: list[tuple[str, list[str]]] = []
    for block in blocks_of(PAGE):
        for line in block.code.splitlines() if block.language == "console" else ():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            else:
                commands[-1][1].append(line)
    return commands


def test_page_is_followed_to_the_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command ends well, and says what the page says, but for sizes and versions."""
    monkeypatch.setattr(llama_installer, "this_machine", lambda: Machine("ubuntu", "x64"))
    usual = llama_releases.DEFAULT_TAG
    archives = {
        tag: tar_gz([(f"llama-{tag}/llama-server", server_program(tag[1:]))])
        for tag in (usual, "b11476")
    }
    known = (hashlib.sha256(archives[usual]).hexdigest(), len(archives[usual]))
    monkeypatch.setattr(llama_releases, "_PINNED", {"ubuntu-x64.tar.gz": known})
    with file_server() as server:
        put_release(server, usual, {f"llama-{usual}-bin-ubuntu-x64.tar.gz": archives[usual]})
        name = "llama-b11476-bin-ubuntu-vulkan-x64.tar.gz"
        url = put_release(server, "b11476", {name: archives["b11476"]})
        path = os.pathsep.join(["/usr/bin", "/bin"])
        home = Home.make(tmp_path, GGLIB_LLAMA_RELEASE_URL=url, PATH=path)
        assert len(typed()) == 5
        for command, shown in typed():
            done = home.run(*shlex.split(command)[1:])
            assert done.returncode == 0, f"$ {command}\n{done.stderr}"
            lines = done.stdout.splitlines()
            assert len(lines) == len(shown), done.stdout
            for line, expected in zip(lines, shown, strict=True):
                assert line.split()[:3] == expected.split()[:3] or "list" in command
