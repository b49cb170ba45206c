"""A far disk that takes no more: what runs goes on and can be ended; no new server is started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import attrs
import pytest
from support.far_machine import FarMachine, far_machine
from support.far_network import FarNetwork
from support.far_runner import RETURN_S, Opener, There, carriers_of, nothing_left, opener

from gglib.errors import NodeUnreachable, StartFailed
from gglib_adapters.runners.ssh.runner import SshProcessRunner


@pytest.fixture
def anyio_backend() -> str:
    """One loop: the contract runs on both."""
    return "asyncio"


@attrs.define
class Disk:
    """A small one of the far machine, under its data directory."""

    network: FarNetwork
    folder: Path

    def fill(self) -> None:
        """Leave no byte on it."""
        self._far_sh('cat /dev/zero > "$1/filler"')

    def fill_with_files(self) -> None:
        """Leave bytes on it, and no room for another file."""
        self._far_sh('n=0; while : > "$1/filler-$n"; do n=$((n + 1)); done')

    def free(self) -> None:
        """Make room again."""
        self._far_sh('rm "$1"/filler*')

    def protect(self) -> None:
        """Let nothing be opened for writing; what is open stays so."""
        self.network.far_run("mount", "--bind", str(self.folder), str(self.folder))
        self.network.far_run("mount", "-o", "remount,bind,ro", str(self.folder))

    def _far_sh(self, script: str) -> None:
        command = ["sh", "-c", script, "sh", str(self.folder)]
        prefix = self.network.far_prefix
        subprocess.run([*prefix, *command], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def machine(tmp_path: Path, network: FarNetwork) -> Iterator[FarMachine]:
    """Give the far machine of the network; nothing may be left running on it."""
    with far_machine(tmp_path / "box", network) as machine, nothing_left(tmp_path):
        yield machine


@pytest.fixture
def disk(machine: FarMachine, network: FarNetwork) -> Disk:
    """Give the machine a disk of a megabyte."""
    folder = machine.folder / "far"
    folder.mkdir()
    options = "size=1m,nr_inodes=60,mode=0700"
    network.far_run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    return Disk(network, folder)


@pytest.fixture
def open_there(machine: FarMachine, tmp_path: Path) -> Opener:
    """Return what opens a runner of servers on the machine."""
    return opener(machine, tmp_path)


async def refusal(there: There) -> str:
    """Return why a start is refused."""
    with pytest.raises(StartFailed) as caught:
        await there.start("late")
    return str(caught.value)


@pytest.mark.parametrize("fill", [Disk.fill, Disk.fill_with_files])
async def test_full_disk_refuses_starts_and_harms_no_server(
    fill: Callable[[Disk], None], disk: Disk, open_there: Opener
) -> None:
    """It says which machine, why and what to do; once there is room, all is as before."""
    async with open_there() as there:
        lasting, ending = await there.start("lasting"), await there.start("ending")
        await there.until_healthy(lasting)
        await there.until_healthy(ending)
        fill(disk)
        said = await refusal(there)
        assert "box can keep no record of it" in said
        assert "No space left on device" in said
        assert "make room there, or choose another data_dir" in said
        await there.runner.stop(ending)
        assert await there.runner.list_running() == [lasting]
        assert [each.pid for each in carriers_of(there.folder)] == [lasting.pid]
        disk.free()
        late = await there.start("late")
        with anyio.fail_after(RETURN_S):
            await there.until_healthy(late)
            await there.until_healthy(lasting)


async def test_server_that_ends_on_a_full_disk_is_known_to_have_ended_and_how(
    disk: Disk, open_there: Opener
) -> None:
    """The place for its status was kept; what it wrote in vain did not end it."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        disk.fill()
        await there.post(handle, "/stub/print", b"into the void")
        assert (await there.runner.health(handle)).healthy
        await there.post(handle, "/stub/exit", b"3")
        with anyio.fail_after(RETURN_S):
            assert await there.runner.wait(handle) == 3


async def test_read_only_disk_refuses_starts_and_its_servers_are_reached_and_stopped(
    machine: FarMachine, disk: Disk, open_there: Opener
) -> None:
    """Over a new connection, too; the doctor says it before a start does."""
    async with open_there() as there:
        handle = await there.start()
        await there.until_healthy(handle)
        disk.protect()
        machine.cut()
        with anyio.fail_after(RETURN_S):
            await there.until_healthy(handle)
        assert "Read-only file system" in await refusal(there)
        assert isinstance(there.runner, SshProcessRunner)
        shell = next(step for step in await there.runner.examine([]) if step.name == "shell")
        assert not shell.works
        assert "Read-only file system" in shell.detail
        await there.runner.stop(handle)
        assert carriers_of(there.folder) == []


async def test_read_only_disk_without_a_place_for_servers_is_named(
    disk: Disk, open_there: Opener
) -> None:
    """There is nothing to be reached; it says why, and what to do."""
    disk.protect()
    async with open_there() as there:
        with pytest.raises(NodeUnreachable, match=r"Read-only file system.*another data_dir"):
            await there.runner.list_running()


@pytest.mark.soak
@pytest.mark.parametrize("change", [Disk.fill, Disk.fill_with_files, Disk.protect])
async def test_disk_that_takes_no_more_does_not_let_servers_of_a_living_gglib_end_themselves(
    change: Callable[[Disk], None], disk: Disk, open_there: Opener
) -> None:
    """The lease is renewed in its place; where it cannot be, nobody is taken for gone."""
    async with open_there(orphan_ttl_s=4) as there:
        handle = await there.start()
        await there.until_healthy(handle)
        change(disk)
        with anyio.move_on_after(9) as waited:
            await there.runner.wait(handle)
        assert waited.cancelled_caught
