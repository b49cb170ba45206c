"""Pieces of files on another machine arrive as they are there, or it is said why not."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import attrs
import psutil
import pytest
from support.far_machine import FarMachine, far_machine, readers_of

from gglib.domain.file_mark import FileMark
from gglib.errors import InvalidModelFile, NodeUnreachable
from gglib.ports.far_files import FarFile, Missing
from gglib.testing.contexts import make_context
from gglib_adapters.runners.mock import FakeClock
from gglib_adapters.runners.ssh import SshProcessRunner, open_ssh_runner

pytestmark = pytest.mark.anyio
MIB = 2**20


@pytest.fixture
def anyio_backend() -> str:
    """One loop: what is read does not depend on it."""
    return "asyncio"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarMachine]:
    """Give a machine behind an OpenSSH server."""
    with far_machine(tmp_path_factory.mktemp("box")) as machine:
        yield machine


@pytest.fixture
async def runner(machine: FarMachine, tmp_path: Path) -> AsyncIterator[SshProcessRunner]:
    """Open its runner."""
    context = make_context(tmp_path, name="box", settings=machine.settings)
    async with open_ssh_runner(context) as runner:
        yield runner


async def found(runner: SshProcessRunner, path: Path) -> FarFile:
    """Return the file, which is there."""
    (file,) = await runner.files.look([str(path)])
    assert isinstance(file, FarFile)
    return file


async def test_any_piece_is_what_lies_there(runner: SshProcessRunner, tmp_path: Path) -> None:
    """From any byte on, in several answers where it is long, up to the end and not beyond."""
    content = random.Random(1).randbytes(9 * MIB + 7)
    path = tmp_path / "a 'b' $(exit 7) \u2028 é.bin"
    path.write_bytes(content)
    file = await found(runner, path)
    assert file.mark.size_bytes == len(content)
    for offset, count in ((0, 4), (65_535, 2), (70_001, 9 * MIB), (9 * MIB, 99), (10 * MIB, 1)):
        assert await runner.files.read(file, offset, count) == content[offset : offset + count]


async def test_file_that_changes_meanwhile_is_refused(
    runner: SshProcessRunner, tmp_path: Path
) -> None:
    """By its size or its time; also one that is gone."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one")
    file = await found(runner, path)
    os.utime(path, (5, 5))
    with pytest.raises(InvalidModelFile, match="changed while it was read"):
        await runner.files.read(file, 0, 3)
    file = attrs.evolve(file, mark=FileMark(size_bytes=3, mtime_ns=5_000_000_000))
    assert await runner.files.read(file, 0, 3) == b"one"
    path.unlink()
    with pytest.raises(InvalidModelFile, match="changed while it was read"):
        await runner.files.read(file, 0, 3)


async def test_sum_is_computed_there_while_other_questions_are_answered(
    runner: SshProcessRunner, tmp_path: Path
) -> None:
    """That of the bytes, whatever the file is called; and every byte is told of once."""
    content = random.Random(2).randbytes(5 * MIB + 3)
    path = tmp_path / "a 'b' $(exit 7) \u2028 é.bin"
    path.write_bytes(content)
    file = await found(runner, path)
    told: list[int] = []
    assert await runner.files.sha256(file, told.append) == hashlib.sha256(content).hexdigest()
    assert sum(told) == len(content)
    with path.open("r+b") as large:
        large.truncate(2**40)
    file = await found(runner, path)
    told.clear()
    async with anyio.create_task_group() as readers:
        readers.start_soon(runner.files.sha256, file, told.append)
        with anyio.fail_after(10):
            while sum(told) < 20 * MIB:
                await found(runner, path)
        (reader,) = readers_of(path)
        readers.cancel_scope.cancel()
    # The group has ended, and with it what read there.
    psutil.wait_procs([reader], timeout=5)
    assert not readers_of(path)


async def test_sum_of_a_file_that_changes_meanwhile_is_refused(
    runner: SshProcessRunner, tmp_path: Path
) -> None:
    """It would be that of neither."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"one")
    file = await found(runner, path)
    os.utime(path, (5, 5))
    with pytest.raises(InvalidModelFile, match="changed while it was read"):
        await runner.files.sha256(file)


async def test_many_files_are_looked_at_in_their_order(
    runner: SshProcessRunner, tmp_path: Path
) -> None:
    """What is no file keeps its place, and names that cannot be said are of nothing."""
    names = [f"{number}.gguf" for number in range(450)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    asked = ["a\nb", *(str(tmp_path / name) for name in names), "/nowhere", str(tmp_path), ""]
    first, *files, nowhere, folder, empty = await runner.files.look(asked)
    assert first == nowhere == empty == Missing()
    assert folder == Missing("a directory; name the .gguf file in it")
    assert [file.path.name for file in files if isinstance(file, FarFile)] == names
    paths = [file.path for file in files if isinstance(file, FarFile)]
    heads = await runner.files.heads([*paths, Path("/nowhere")])
    assert [head.rstrip(b"\0").decode() for head in heads] == [*names, ""]
    assert {len(head) for head in heads} == {4096}


async def test_devices_are_asked_for_once_in_two_seconds(
    machine: FarMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round trip tells all of them; who cannot ask is told so."""
    clock = FakeClock()
    context = make_context(tmp_path, name="box", settings=machine.settings, clock=clock)
    async with open_ssh_runner(context) as runner:
        asked: list[str] = []
        ask = runner._link.ask

        async def counted(function: str, *arguments: str, **more: float) -> str:
            asked.append(function)
            return await ask(function, *arguments, **more)

        monkeypatch.setattr(type(runner._link), "ask", staticmethod(counted))
        first = await runner.devices()
        assert first[0].name == "cpu"
        assert await runner.devices() is first
        assert asked == ["gglib_devices"]
        await clock.advance(3)
        await runner.devices()
        assert asked == ["gglib_devices"] * 2


async def test_machine_that_is_away_tells_nothing(tmp_path: Path) -> None:
    """``NodeUnreachable``, for its memory and for its files."""
    settings = {"host": "127.0.0.1", "ssh_config": "/dev/null", "connect_timeout_s": 1}
    context = make_context(tmp_path, name="box", settings=settings)
    async with open_ssh_runner(context) as runner:
        with pytest.raises(NodeUnreachable):
            await runner.devices()
        with pytest.raises(NodeUnreachable):
            await runner.files.look(["/etc"])
